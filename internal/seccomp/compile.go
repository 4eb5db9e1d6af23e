package seccomp

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// arch is one of the system call tables of an x86-64 kernel.
type arch struct {
	name    specs.Arch
	numbers []number
	// base is added to every number of the table.
	base uint32
	// narrow calls have arguments of 32 bits: of a register, the rest is not looked
	// at.
	narrow bool
}

// number is a system call's name and number. Tables are slices, not maps: those
// would be filled whenever duplex starts.
type number struct {
	name string
	nr   uint32
}

// byName returns the table as a map, base added.
func (a arch) byName() map[string]uint32 {
	out := make(map[string]uint32, len(a.numbers))
	for _, n := range a.numbers {
		out[n.name] = n.nr + a.base
	}
	return out
}

// x32Bit marks a system call of the x32 ABI (__X32_SYSCALL_BIT).
const x32Bit = 0x40000000

var arches = []arch{
	{specs.ArchX86_64, numbersX86_64, 0, false},
	{specs.ArchX32, numbersX32, x32Bit, true},
	{specs.ArchX86, numbersX86, 0, true},
}

// Offsets in struct seccomp_data (linux/seccomp.h); little-endian.
const (
	offsetNr   = 0
	offsetArch = 4
	offsetArgs = 16
)

// Compile turns a profile into a program of at most 4096 instructions. Names of
// calls that an architecture does not have are skipped there. A call of an
// architecture that the profile does not list kills the process, as with
// libseccomp: a profile that allows by default would not hold otherwise.
func Compile(p *specs.LinuxSeccomp) ([]unix.SockFilter, error) {
	above := unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	switch p.DefaultAction {
	case specs.ActAllow, specs.ActLog, specs.ActTrace, specs.ActNotify:
		// A list of what is denied says nothing of newer calls.
		def, err := actionOf(p.DefaultAction, p.DefaultErrnoRet)
		if err != nil {
			return nil, err
		}
		above = def
	}
	return compile(p, above, unix.SECCOMP_RET_KILL_PROCESS)
}

// CompileExact is Compile for an allowlist: calls newer than the profile get the
// default action, and so do the other architectures when they are not listed.
func CompileExact(p *specs.LinuxSeccomp) ([]unix.SockFilter, error) {
	def, err := actionOf(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	return compile(p, def, def)
}

// compile gives calls above all that p names the action above, and those of
// architectures that p does not list the action other.
func compile(p *specs.LinuxSeccomp, above, other uint32) ([]unix.SockFilter, error) {
	def, err := actionOf(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	parts := make(map[specs.Arch]block, len(arches))
	for _, a := range arches {
		if !slices.Contains(p.Architectures, a.name) {
			parts[a.name] = block{ret(other)}
			if a.name == specs.ArchX32 && slices.Contains(p.Architectures, specs.ArchX86_64) {
				// -1 is no call of x32: a tracer skips a call by it.
				parts[a.name] = block{jump(unix.BPF_JEQ, 1<<32-1, 0, 1), ret(above), ret(other)}
			}
			continue
		}
		table, err := segments(p, a, def, above)
		if err != nil {
			return nil, err
		}
		parts[a.name] = search(table)
	}
	native := append(block{jump(unix.BPF_JGE, x32Bit, 0, 1)}, // not x32: over the long jump
		jumpAlways(len(parts[specs.ArchX86_64])))
	native = append(append(native, parts[specs.ArchX86_64]...), parts[specs.ArchX32]...)

	prog := block{
		load(offsetArch),
		jump(unix.BPF_JEQ, unix.AUDIT_ARCH_X86_64, 3, 0),
		jump(unix.BPF_JEQ, unix.AUDIT_ARCH_I386, 1, 0),
		ret(unix.SECCOMP_RET_KILL_PROCESS),
		jumpAlways(1 + len(native)),
		load(offsetNr),
	}
	prog = append(prog, native...)
	prog = append(prog, load(offsetNr))
	prog = append(prog, parts[specs.ArchX86]...)
	if len(prog) > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("compile seccomp profile: %d instructions, the kernel takes %d", len(prog), unix.BPF_MAXINSNS)
	}
	return prog, nil
}

// segment says what happens from one system call number up to the next
// segment's.
type segment struct {
	from uint32
	code block
}

// rule is one entry of the profile for one system call.
type rule struct {
	action uint32
	args   []specs.LinuxSeccompArg
}

// segments covers all numbers of a with the profile's rules: def for what the
// profile does not name, above for what is above all that it does.
func segments(p *specs.LinuxSeccomp, a arch, def, above uint32) ([]segment, error) {
	rules, err := rulesOf(p, a, def)
	if err != nil {
		return nil, err
	}
	numbers := make([]uint32, 0, len(rules))
	for nr := range rules {
		numbers = append(numbers, nr)
	}
	slices.Sort(numbers)

	table := []segment{{0, block{ret(def)}}}
	add := func(from uint32, code block) {
		last := &table[len(table)-1]
		switch {
		case last.from == from:
			last.code = code
		case !slices.Equal(last.code, code):
			table = append(table, segment{from, code})
		}
	}
	for i, nr := range numbers {
		code, err := decide(rules[nr], def, a.narrow)
		if err != nil {
			return nil, err
		}
		add(nr, code)
		if i == len(numbers)-1 {
			add(nr+1, block{ret(above)})
		} else if numbers[i+1] != nr+1 {
			add(nr+1, block{ret(def)})
		}
	}
	return merge(table), nil
}

// rulesOf collects what p says of each call of a. As runc hands a profile to
// libseccomp, a rule of the default action says nothing but that the call is
// known, and comparisons with one and the same argument are alternatives.
func rulesOf(p *specs.LinuxSeccomp, a arch, def uint32) (map[uint32][]rule, error) {
	byName, rules := a.byName(), map[uint32][]rule{}
	for _, call := range p.Syscalls {
		action, err := actionOf(call.Action, call.ErrnoRet)
		if err != nil {
			return nil, err
		}
		var own []rule
		if action != def {
			own = alternatives(action, call.Args)
		}
		for _, name := range call.Names {
			if nr, ok := byName[name]; ok {
				rules[nr] = append(rules[nr], own...)
			}
			if m, ok := multiplexers[name]; ok && a.name == specs.ArchX86 {
				for _, r := range own {
					nr := byName[m.call]
					rules[nr] = append(rules[nr], rule{action, m.args(r.args)})
				}
			}
		}
	}
	return rules, nil
}

// alternatives are the rules that a list of comparisons stands for.
func alternatives(action uint32, args []specs.LinuxSeccompArg) []rule {
	seen := map[uint]bool{}
	for _, arg := range args {
		seen[arg.Index] = true
	}
	if len(seen) == len(args) {
		return []rule{{action, args}}
	}
	out := make([]rule, 0, len(args))
	for _, arg := range args {
		out = append(out, rule{action, []specs.LinuxSeccompArg{arg}})
	}
	return out
}

// merge joins neighbours that do the same.
func merge(table []segment) []segment {
	return slices.CompactFunc(table, func(a, b segment) bool { return slices.Equal(a.code, b.code) })
}

// decide makes the code for one system call. A rule without comparisons decides
// alone; otherwise the first whose comparisons all hold does, in the order of
// the profile, and def when none does.
func decide(rules []rule, def uint32, narrow bool) (block, error) {
	if i := slices.IndexFunc(rules, func(r rule) bool { return len(r.args) == 0 }); i >= 0 {
		return block{ret(rules[i].action)}, nil
	}
	var code block
	for _, r := range rules {
		args := slices.SortedFunc(slices.Values(r.args), func(a, b specs.LinuxSeccompArg) int { return cmp.Compare(a.Index, b.Index) })
		match, err := compareAll(args, narrow)
		if err != nil {
			return nil, err
		}
		code = append(append(code, match...), ret(r.action))
	}
	return append(code, ret(def)), nil
}

// search makes a binary search for the system call number in the accumulator.
func search(table []segment) block {
	if len(table) == 1 {
		return table[0].code
	}
	mid := len(table) / 2
	low, high := search(table[:mid]), search(table[mid:])
	var code block
	if len(low) <= maxJump {
		code = block{jump(unix.BPF_JGE, table[mid].from, len(low), 0)}
	} else {
		code = block{jump(unix.BPF_JGE, table[mid].from, 0, 1), jumpAlways(len(low))}
	}
	return append(append(code, low...), high...)
}

// trapData is the SECCOMP_RET_DATA of a trap, which the handler finds in si_errno.
func trapData(errno *uint) uint16 {
	if errno == nil {
		return 0
	}
	return uint16(*errno)
}

// actionOf returns the SECCOMP_RET_* value of an action. An errno that is not
// given is EPERM, as in runc; that of a trap is its data.
func actionOf(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	switch a {
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActNotify:
		return unix.SECCOMP_RET_USER_NOTIF, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | uint32(trapData(errno)), nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP | uint32(trapData(errno)), nil
	case specs.ActErrno:
		n := uint(unix.EPERM)
		if errno != nil {
			n = *errno
		}
		if n > 4095 {
			return 0, fmt.Errorf("compile seccomp profile: errno %d is out of range", n)
		}
		return unix.SECCOMP_RET_ERRNO | uint32(n), nil
	}
	return 0, fmt.Errorf("compile seccomp profile: action %q is not supported", a)
}

// Name returns the name of an x86-64 system call, "" when it has none here.
func Name(nr uint32) string {
	i, ok := slices.BinarySearchFunc(numbersX86_64, nr, func(n number, nr uint32) int { return cmp.Compare(n.nr, nr) })
	if !ok {
		return ""
	}
	return numbersX86_64[i].name
}
