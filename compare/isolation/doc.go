// Package isolation says what one probe run saw from inside each side, and what
// that means: the isolation table of `duplex compare`.
//
// The probe (compare/probe, a static program that the runner puts beside the
// workload) prints one Observation as JSON. Parse reads it and trusts nothing
// in it: a side under study may lie, so sizes are bounded and text is stripped
// of control characters. Classify compares the Observation with what this
// process reads about the kernel it runs on itself (HostFacts) and turns every
// attempt into one of three words:
//
//   - denied: the kernel refused, and the errno says how;
//   - allowed: it worked on the very kernel that duplex runs on;
//   - allowed, guest only: it worked, but the boot id is not this kernel's, so
//     only the guest's own kernel feels it.
//
// There is no score. A row says what was tried in this run, on this host, as
// this user, and nothing about what was not tried.
package isolation
