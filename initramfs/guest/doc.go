// Command guest is the agent: PID 1 of every machine duplex boots, the microVM
// and the lab. It is the /init of the initramfs, static, and knows nothing of
// the run until the host tells it, so that one initramfs serves every run.
//
// In order: mark that the kernel is up; mount /proc, /sys and /dev; load the
// modules listed in /modules/order; open the streams of internal/agentproto over
// the transport that the kernel command line names; say hello; get the
// workload's spec; mount the root file system, read-only with a writable tmpfs
// over it, and switch to it; in the lab, put the carried files in place; run the
// workload as a child in its own session; carry its streams and signals; report
// how it ended; power off.
//
// A machine that is to be saved does all of it that no run decides about first, and
// goes on from the streams when it is restored: snapshot.go, and slots.go for the
// devices that only the clone has.
//
// The agent trusts the host, which made it. It does not protect itself from the
// workload: root in the guest owns the guest's kernel anyway, and what comes out
// of a guest is the host's to distrust. For the same reason a microVM's /proc
// and /sys are not masked as a container's are: they show the guest's kernel.
//
// A step that fails is reported to the host by name (the failed message), or,
// before there is a control stream, on the console.
package main
