package seccomp

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	profile "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	allow  = uint32(unix.SECCOMP_RET_ALLOW)
	eperm  = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.EPERM)
	enosys = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.ENOSYS)
	kill   = uint32(unix.SECCOMP_RET_KILL_PROCESS)
)

// call is a struct seccomp_data.
type call struct {
	arch uint32
	nr   uint32
	args [6]uint64
}

// machine runs a program in the interpreter of golang.org/x/net/bpf. That loads
// words from a packet in network order, so the data is laid out in that order.
type machine struct{ vm *bpf.VM }

func newMachine(t testing.TB, prog []unix.SockFilter) machine {
	t.Helper()
	var raw []bpf.RawInstruction
	for _, i := range prog {
		raw = append(raw, bpf.RawInstruction{Op: i.Code, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	ins, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the program does not disassemble")
	}
	vm, err := bpf.NewVM(ins)
	if err != nil {
		t.Fatalf("the program is not valid: %v", err)
	}
	return machine{vm}
}

func (m machine) run(t testing.TB, c call) uint32 {
	t.Helper()
	data := binary.BigEndian.AppendUint32(nil, c.nr)
	data = binary.BigEndian.AppendUint32(data, c.arch)
	data = binary.BigEndian.AppendUint64(data, 0) // instruction_pointer
	for _, a := range c.args {
		data = binary.BigEndian.AppendUint32(data, uint32(a))
		data = binary.BigEndian.AppendUint32(data, uint32(a>>32))
	}
	n, err := m.vm.Run(data)
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	return uint32(n)
}

// dockerCaps is a bounding set as docker's: without CAP_SYS_ADMIN.
var dockerCaps = []string{"CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_KILL"}

func defaultProfile(t testing.TB) *specs.LinuxSeccomp {
	t.Helper()
	p, err := profile.GetDefaultProfile(&specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: dockerCaps}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDefaultProfile(t *testing.T) {
	prog, err := Compile(defaultProfile(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(prog))
	m := newMachine(t, prog)
	const x64, x86 = unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386
	arg := func(a ...uint64) (out [6]uint64) { copy(out[:], a); return out }
	for _, tt := range []struct {
		name string
		call call
		want uint32
	}{
		{"read", call{x64, unix.SYS_READ, arg()}, allow},
		{"execve", call{x64, unix.SYS_EXECVE, arg()}, allow},
		{"chroot: CAP_SYS_CHROOT is there", call{x64, unix.SYS_CHROOT, arg()}, allow},
		{"mount", call{x64, unix.SYS_MOUNT, arg()}, eperm},
		{"unshare", call{x64, unix.SYS_UNSHARE, arg()}, eperm},
		{"bpf", call{x64, unix.SYS_BPF, arg()}, eperm},
		{"keyctl", call{x64, unix.SYS_KEYCTL, arg()}, eperm},
		{"clone3", call{x64, unix.SYS_CLONE3, arg()}, enosys},
		{"clone of a thread", call{x64, unix.SYS_CLONE, arg(unix.CLONE_VM | unix.CLONE_THREAD)}, allow},
		{"clone of a user namespace", call{x64, unix.SYS_CLONE, arg(unix.CLONE_NEWUSER)}, eperm},
		{"clone with high bits", call{x64, unix.SYS_CLONE, arg(1 << 40)}, allow},
		{"socket AF_INET", call{x64, unix.SYS_SOCKET, arg(unix.AF_INET)}, allow},
		{"socket AF_ALG", call{x64, unix.SYS_SOCKET, arg(unix.AF_ALG)}, eperm},
		{"socket 39", call{x64, unix.SYS_SOCKET, arg(39)}, allow},
		{"socket AF_VSOCK", call{x64, unix.SYS_SOCKET, arg(unix.AF_VSOCK)}, eperm},
		{"socket 41", call{x64, unix.SYS_SOCKET, arg(41)}, allow},
		{"socket 1<<32", call{x64, unix.SYS_SOCKET, arg(1 << 32)}, allow},
		{"personality 0", call{x64, unix.SYS_PERSONALITY, arg(0)}, allow},
		{"personality 8", call{x64, unix.SYS_PERSONALITY, arg(8)}, allow},
		{"personality 9", call{x64, unix.SYS_PERSONALITY, arg(9)}, eperm},
		{"personality query", call{x64, unix.SYS_PERSONALITY, arg(0xffffffff)}, allow},
		{"personality 1<<32", call{x64, unix.SYS_PERSONALITY, arg(1 << 32)}, eperm},
		{"newer than the profile", call{x64, 4000, arg()}, enosys},
		{"x32 read", call{x64, x32Bit + unix.SYS_READ, arg()}, allow},
		{"x32 execve", call{x64, x32Bit + 520, arg()}, allow},
		{"x32 mount", call{x64, x32Bit + unix.SYS_MOUNT, arg()}, eperm},
		{"x32 personality 9", call{x64, x32Bit + unix.SYS_PERSONALITY, arg(9)}, eperm},
		{"x32 newer than the profile", call{x64, x32Bit + 4000, arg()}, enosys},
		{"-1", call{x64, 0xffffffff, arg()}, enosys},
		{"x86 read", call{x86, 3, arg()}, allow},
		{"x86 mount", call{x86, 21, arg()}, eperm},
		{"x86 newer than the profile", call{x86, 4000, arg()}, enosys},
		{"another architecture", call{unix.AUDIT_ARCH_AARCH64, 1, arg()}, kill},
		{"no architecture", call{0, 0, arg()}, kill},
	} {
		if got := m.run(t, tt.call); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
}

// expect evaluates a profile the slow way, as the specification reads.
func expect(t *testing.T, p *specs.LinuxSeccomp, a arch, name string, args [6]uint64) uint32 {
	t.Helper()
	action := func(a specs.LinuxSeccompAction, errno *uint) uint32 {
		n, err := actionOf(a, errno)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, conditional := range []bool{false, true} {
		for _, s := range p.Syscalls {
			for _, n := range s.Names {
				if n == name && len(s.Args) > 0 == conditional && holds(t, s.Args, args) {
					return action(s.Action, s.ErrnoRet)
				}
			}
		}
	}
	return action(p.DefaultAction, p.DefaultErrnoRet)
}

func holds(t *testing.T, list []specs.LinuxSeccompArg, args [6]uint64) bool {
	for _, a := range list {
		v, ok := args[a.Index], false
		switch a.Op {
		case specs.OpEqualTo:
			ok = v == a.Value
		case specs.OpNotEqual:
			ok = v != a.Value
		case specs.OpGreaterThan:
			ok = v > a.Value
		case specs.OpGreaterEqual:
			ok = v >= a.Value
		case specs.OpLessThan:
			ok = v < a.Value
		case specs.OpLessEqual:
			ok = v <= a.Value
		case specs.OpMaskedEqual:
			ok = v&a.Value == a.ValueTwo
		default:
			t.Fatalf("operator %q", a.Op)
		}
		if !ok {
			return false
		}
	}
	return true
}

// Every call of every architecture does what the profile says, with arguments
// around the values that it compares with.
func TestProgramMeansProfile(t *testing.T) {
	everyOp := defaultProfile(t)
	enxio := uint(unix.ENXIO)
	for i, op := range []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpGreaterThan,
		specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpMaskedEqual} {
		// mount, swapon and others are not in the profile: they get rules here.
		names := []string{"mount", "swapon", "swapoff", "sethostname", "iopl", "reboot", "acct"}
		everyOp.Syscalls = append(everyOp.Syscalls,
			specs.LinuxSyscall{Names: names[i : i+1], Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{
				{Index: 5, Value: 0x1_8000_0001, ValueTwo: 0x1_0000_0001, Op: op},
				{Index: 0, Value: 7, ValueTwo: 7, Op: specs.OpLessEqual},
			}},
			specs.LinuxSyscall{Names: names[i : i+1], Action: specs.ActErrno, ErrnoRet: &enxio, Args: []specs.LinuxSeccompArg{
				{Index: 3, Value: 1 << 63, ValueTwo: 1 << 63, Op: op},
			}})
	}
	values := []uint64{0, 1, 6, 7, 8, 9, 37, 38, 39, 40, 41, 0x20000, 0x20008, 0x7e020000, unix.CLONE_NEWNS,
		0x8000_0000, 0x8000_0001, 0xffff_ffff, 1 << 32, 0x1_0000_0001, 0x1_8000_0000, 0x1_8000_0001, 0x1_8000_0002,
		0x2_8000_0001, 1<<63 - 1, 1 << 63, 1<<63 + 1, 1<<64 - 1}
	for name, p := range map[string]*specs.LinuxSeccomp{"default": defaultProfile(t), "every operator": everyOp} {
		prog, err := Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		m := newMachine(t, prog)
		rng := rand.New(rand.NewPCG(1, 2))
		checked := 0
		for _, a := range arches {
			numbers, top := a.byName(), a.base
			for _, s := range p.Syscalls {
				for _, n := range s.Names {
					top = max(top, numbers[n])
				}
			}
			for call_, nr := range numbers {
				for range 40 {
					c := call{arch: audit[a.name], nr: nr}
					for i := range c.args {
						c.args[i] = values[rng.IntN(len(values))]
					}
					seen := c.args
					for i := range seen {
						if a.narrow {
							seen[i] &= 1<<32 - 1
						}
					}
					want := expect(t, p, a, call_, seen)
					if nr > top {
						want = enosys
					}
					if got := m.run(t, c); got != want {
						t.Fatalf("%s: %s %s%x: %#x, want %#x", name, a.name, call_, c.args, got, want)
					}
					checked++
				}
			}
		}
		t.Logf("%s: %d instructions, %d calls", name, len(prog), checked)
	}
}

func TestCompileRefuses(t *testing.T) {
	big := uint(4096)
	for name, p := range map[string]*specs.LinuxSeccomp{
		"no default":       {},
		"unknown action":   {DefaultAction: "SCMP_ACT_DANCE"},
		"errno too large":  {DefaultAction: specs.ActErrno, DefaultErrnoRet: &big},
		"unknown operator": {DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64}, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: "?"}}}}},
		"argument 6":       {DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64}, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}}},
	} {
		if _, err := Compile(p); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A call of an architecture the profile does not list kills, whatever the default.
func TestArchitectureNotListed(t *testing.T) {
	prog, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}}})
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, prog)
	for c, want := range map[call]uint32{
		{arch: unix.AUDIT_ARCH_X86_64, nr: 0}:          allow,
		{arch: unix.AUDIT_ARCH_X86_64, nr: x32Bit}:     unix.SECCOMP_RET_KILL_PROCESS,
		{arch: unix.AUDIT_ARCH_I386, nr: 3}:            unix.SECCOMP_RET_KILL_PROCESS,
		{arch: unix.AUDIT_ARCH_X86_64, nr: x32Bit - 1}: enosys,
	} {
		if got := m.run(t, c); got != want {
			t.Errorf("%+v: %#x, want %#x", c, got, want)
		}
	}
}

// A profile that lists what is denied leaves calls that are newer than it as
// they are; one that lists what is allowed answers ENOSYS (see the tests above).
func TestNewerCallsOfADenylist(t *testing.T) {
	prog, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64},
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"getcwd"}, Action: specs.ActErrno},
			{Names: []string{"mkdir"}, Action: specs.ActNotify},
			{Names: []string{"rmdir"}, Action: specs.ActTrace},
		}})
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, prog)
	for nr, want := range map[uint32]uint32{
		unix.SYS_GETCWD: eperm, unix.SYS_READ: allow, 460: allow,
		unix.SYS_MKDIR: unix.SECCOMP_RET_USER_NOTIF, unix.SYS_RMDIR: unix.SECCOMP_RET_TRACE,
	} {
		if got := m.run(t, call{arch: unix.AUDIT_ARCH_X86_64, nr: nr}); got != want {
			t.Errorf("call %d: %#x, want %#x", nr, got, want)
		}
	}
}
