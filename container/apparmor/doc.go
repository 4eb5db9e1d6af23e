// Package apparmor holds docker's AppArmor profile, compiled, and loads it.
//
// duplex-default.profile is compiled ahead of time, by `go generate` with Debian's
// apparmor_parser and the features of Linux 5.4, which newer kernels take: a host
// needs no compiler. Like docker's own, the profile stays loaded until the host is
// booted again; it confines nothing but what asks for it.
package apparmor

//go:generate sh -c "apparmor_parser -K -Q -S -M /etc/apparmor.d/abi/kernel-5.4-vanilla duplex-default.profile >duplex-default.bin && sha256sum <duplex-default.profile >duplex-default.sum"
