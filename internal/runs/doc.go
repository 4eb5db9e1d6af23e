// Package runs keeps track of the runs of this user on this host, and is how one
// duplex process acts on the run of another.
//
// A run has a directory of its own, below hostdir.RuntimeRoot, while it lives; one
// that was detached until it is removed:
//
//	record     Record, JSON, replaced as a whole
//	lock       held with flock(2) by the run's process; gone once it has ended
//	control    Unix socket: Server, Dial
//	log, log.1 what a detached workload has written, the last LogLimit bytes or more
//
// Like hostdir, whoever looks at a directory whose lock nobody holds knows that its
// process was killed, and settles what is left: a detached run becomes one that
// ended by SIGKILL, any other is forgotten.
//
// The control socket carries Messages, each a uint32 (little endian) length and that
// many bytes of JSON; the first of a connection says what it is about and may have
// descriptors attached (SCM_RIGHTS): stdin, stdout and stderr. Only processes of the
// run's user, and root's, are listened to. What they send is bounded (maxMessage)
// and checked all the same.
package runs
