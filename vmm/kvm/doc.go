// Package kvm is the part of the Linux KVM API that the monitor uses, typed.
//
// Open gives a System (/dev/kvm), System.CreateVM a VM, VM.CreateVCPU a VCPU.
// Each owns a file descriptor and, for a VCPU, the mapping of its kvm_run page;
// Close releases them and is idempotent. Names, numbers and layouts are those of
// the kernel's Documentation/virt/kvm/api.rst and <linux/kvm.h> for x86-64.
//
// VCPU.Run enters the guest and returns at the next exit. A signal ends it with
// no exit to handle: then the caller decides whether to enter again. To stop a
// vCPU from elsewhere call VCPU.Kick.
//
// Why not a library: the one Go wrapper of this API lacks irqfd, ioeventfd and
// the data of most exits, and hands raw pointers through every function. Here
// all of unsafe is in ioctl_unsafe.go and run_unsafe.go.
package kvm
