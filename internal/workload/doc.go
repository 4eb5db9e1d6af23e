// Package workload holds what both isolations share: the Spec that says what to
// run, the Stdio it runs with, the Exit it ends with and the Phases it passes.
//
// A Spec is plain data. It is validated before /dev/kvm is opened or a
// namespace is unshared, and it means the same to the microVM and to the
// container. Anything that runs a Spec is a Runner, and there are two:
// microvm.Runner and container.Runner.
package workload
