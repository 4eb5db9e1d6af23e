package seccomp

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// An exact allowlist denies what is newer than itself, and carries its data.
func TestCompileExact(t *testing.T) {
	role := uint(7)
	prog, err := CompileExact(&specs.LinuxSeccomp{
		DefaultAction: specs.ActTrap, DefaultErrnoRet: &role,
		Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}},
	})
	if err != nil {
		t.Fatal(err)
	}
	trap := uint32(unix.SECCOMP_RET_TRAP) | 7
	m := newMachine(t, prog)
	for c, want := range map[call]uint32{
		{arch: unix.AUDIT_ARCH_X86_64, nr: unix.SYS_READ}: allow,
		{arch: unix.AUDIT_ARCH_X86_64, nr: 1}:             trap,
		{arch: unix.AUDIT_ARCH_X86_64, nr: 100000}:        trap,
		{arch: unix.AUDIT_ARCH_X86_64, nr: x32Bit}:        trap,
		{arch: unix.AUDIT_ARCH_I386, nr: 3}:               trap,
		{arch: unix.AUDIT_ARCH_AARCH64, nr: 63}:           kill,
	} {
		if got := m.run(t, c); got != want {
			t.Errorf("%+v: %#x, want %#x", c, got, want)
		}
	}
}

func TestName(t *testing.T) {
	for nr, want := range map[uint32]string{0: "read", unix.SYS_OPENAT2: "openat2", 400: "", 1 << 31: ""} {
		if got := Name(nr); got != want {
			t.Errorf("%d: %q, want %q", nr, got, want)
		}
	}
}
