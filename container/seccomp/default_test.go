package seccomp_test

import (
	"bytes"
	"os"
	"testing"

	profiles "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/duplex-run/duplex/container/seccomp"
	"github.com/duplex-run/duplex/container/seccomp/compiler"
)

// default.bpf is what the compiler makes of the profile in go.mod; the compiler
// has its own tests.
func TestDefaultIsUpToDate(t *testing.T) {
	var caps []string
	for _, c := range seccomp.DefaultCaps {
		caps = append(caps, c.Name)
	}
	want, text, err := compiler.Default(caps)
	if err != nil {
		t.Fatal(err)
	}
	if got := seccomp.Default(); !bytes.Equal(got, want) {
		t.Errorf("default.bpf holds %d bytes that are not the compiler's %d: run go generate ./container/seccomp", len(got), len(want))
	}
	kept, err := os.ReadFile("default.profile")
	if err != nil || !bytes.Equal(kept, text) {
		t.Errorf("default.profile is not the profile's text (%v): run go generate ./container/seccomp", err)
	}
}

func TestDefaultCapSet(t *testing.T) {
	if got := seccomp.DefaultCapSet(); got != 0xa80425fb { // CapEff in a docker container
		t.Errorf("%#x", got)
	}
}

// A bundle with docker's profile has the program compiled ahead of time, and one
// whose profile differs in anything has not.
func TestKnown(t *testing.T) {
	p := resolved(t)
	if got := seccomp.Known(p); !bytes.Equal(got, seccomp.Default()) {
		t.Fatalf("docker's profile: %d bytes, want default.bpf", len(got))
	}
	two := uint(2)
	for name, change := range map[string]func(*specs.LinuxSeccomp){
		"default":      func(p *specs.LinuxSeccomp) { p.DefaultAction = specs.ActKill },
		"errno":        func(p *specs.LinuxSeccomp) { p.DefaultErrnoRet = &two },
		"architecture": func(p *specs.LinuxSeccomp) { p.Architectures = p.Architectures[:1] },
		"name":         func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names[0] = "mount" },
		"action":       func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = specs.ActLog },
		"rule":         func(p *specs.LinuxSeccomp) { p.Syscalls = p.Syscalls[1:] },
		"joined names": func(p *specs.LinuxSeccomp) {
			n := p.Syscalls[0].Names
			p.Syscalls[0].Names = append([]string{n[0] + " " + n[1]}, n[2:]...)
		},
		"argument": func(p *specs.LinuxSeccomp) {
			p.Syscalls[0].Args = []specs.LinuxSeccompArg{{Index: 0, Op: specs.OpEqualTo}}
		},
		"errno of a rule": func(p *specs.LinuxSeccomp) { p.Syscalls[0].ErrnoRet = &two },
	} {
		p := resolved(t)
		change(p)
		if seccomp.Known(p) != nil {
			t.Errorf("%s changed, and still known", name)
		}
	}
}

// resolved is docker's profile as docker writes it into a config.json.
func resolved(t *testing.T) *specs.LinuxSeccomp {
	t.Helper()
	var caps []string
	for _, c := range seccomp.DefaultCaps {
		caps = append(caps, c.Name)
	}
	p, err := profiles.GetDefaultProfile(&specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
