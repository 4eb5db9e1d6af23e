// Package seccomp holds docker's default seccomp profile as a classic BPF
// program, and the capabilities it goes with.
//
// The program is compiled from github.com/moby/profiles by package compiler,
// ahead of time (go generate): reading and compiling the profile would cost every
// start of a container 1 ms of CPU. A test fails when default.bpf is not what the
// compiler makes of the profile in go.mod.
package seccomp

//go:generate go run generate.go
