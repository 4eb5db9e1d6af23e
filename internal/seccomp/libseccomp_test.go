package seccomp

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var profilesFlag = flag.String("profiles", "", "write the profiles of TestLibseccomp into this directory, for scripts/seccomp-reference")

// reference is what scripts/seccomp-reference wrote down.
type reference struct {
	Libseccomp string
	Profiles   map[string]string // SHA-256 of their JSON
	Unknown    []string          // system calls that this libseccomp does not know
}

// TestLibseccomp runs our programs and libseccomp's for the same profiles, on
// every number that a system call may have, and on every argument that is
// compared, with values on both sides of each comparison.
func TestLibseccomp(t *testing.T) {
	profiles := referenceProfiles(t)
	if *profilesFlag != "" {
		for name, p := range profiles {
			if err := os.WriteFile(filepath.Join(*profilesFlag, name+".json"), profileText(t, p), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	var ref reference
	text, err := os.ReadFile("testdata/libseccomp/index.json")
	if err == nil {
		err = json.Unmarshal(text, &ref)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(ref.Profiles) != len(profiles) {
		t.Errorf("libseccomp has compiled %d profiles of %d: run scripts/seccomp-reference", len(ref.Profiles), len(profiles))
	}
	for _, name := range slices.Sorted(maps.Keys(profiles)) {
		t.Run(name, func(t *testing.T) {
			p := profiles[name]
			sum := sha256.Sum256(profileText(t, p))
			if hex.EncodeToString(sum[:]) != ref.Profiles[name] {
				t.Fatal("libseccomp has compiled another profile: run scripts/seccomp-reference")
			}
			compareWithReference(t, p, readProgram(t, "testdata/libseccomp/"+name+".bpf"), ref.Unknown)
		})
	}
}

func profileText(t *testing.T, p *specs.LinuxSeccomp) []byte {
	t.Helper()
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func readProgram(t *testing.T, path string) []unix.SockFilter {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var prog []unix.SockFilter
	for ; len(raw) >= 8; raw = raw[8:] {
		prog = append(prog, unix.SockFilter{Code: binary.LittleEndian.Uint16(raw), Jt: raw[2], Jf: raw[3], K: binary.LittleEndian.Uint32(raw[4:])})
	}
	return prog
}

// audit is what a kernel says of the architecture of a table's calls.
var audit = map[specs.Arch]uint32{specs.ArchX86_64: unix.AUDIT_ARCH_X86_64, specs.ArchX32: unix.AUDIT_ARCH_X86_64, specs.ArchX86: unix.AUDIT_ARCH_I386}

func compareWithReference(t *testing.T, p *specs.LinuxSeccomp, theirs []unix.SockFilter, unknown []string) {
	t.Helper()
	prog, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	ours, reference := newMachine(t, prog), newMachine(t, theirs)
	e := newExplainer(t, p, unknown)
	bad, checked := 0, 0
	for _, c := range referenceCalls(p) {
		checked++
		a, b := ours.run(t, c), reference.run(t, c)
		if a == b || e.explains(c, a, b) {
			continue
		}
		if bad++; bad <= 10 {
			t.Errorf("architecture %#x %s, call %#x, arguments %#x: %#x, libseccomp %#x", c.arch, table(c), c.nr, c.args, a, b)
		}
	}
	t.Logf("%d instructions, libseccomp's %d; %d calls, %d differ without a reason; with: %v", len(prog), len(theirs), checked, bad, e.counts)
}

// referenceCalls are all calls that two programs for p are compared on.
func referenceCalls(p *specs.LinuxSeccomp) []call {
	var out []call
	add := func(arch, nr uint32) {
		out = append(out, call{arch: arch, nr: nr}, call{arch: arch, nr: nr, args: everyBit(arch)})
	}
	for _, arch := range []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, 0, 0xffffffff} {
		for _, base := range []uint32{0, x32Bit, 1 << 31, 1<<31 | x32Bit} {
			numbers := uint32(4)
			if base <= x32Bit && (arch == unix.AUDIT_ARCH_X86_64 || arch == unix.AUDIT_ARCH_I386) {
				numbers = 1024 // more than any table has
			}
			for nr := range numbers {
				add(arch, base+nr)
			}
			add(arch, base-1)
			add(arch, base-2)
		}
	}
	for _, a := range arches {
		byName := a.byName()
		for _, name := range conditionalNames(p) {
			nr, ok := byName[name]
			if !ok {
				continue
			}
			for _, args := range argumentsFor(p, name, a.name == specs.ArchX86) {
				out = append(out, call{arch: audit[a.name], nr: nr, args: args})
			}
		}
		if a.name != specs.ArchX86 {
			continue
		}
		for _, name := range []string{"socketcall", "ipc"} {
			for which := range uint64(64) {
				for _, version := range []uint64{0, 1 << 16} {
					out = append(out, call{arch: audit[a.name], nr: byName[name], args: [6]uint64{which | version}})
				}
			}
		}
	}
	return out
}

func everyBit(arch uint32) (out [6]uint64) {
	for i := range out {
		out[i] = 1<<64 - 1
		if arch == unix.AUDIT_ARCH_I386 {
			out[i] = 1<<32 - 1
		}
	}
	return out
}

// conditionalNames are the calls that p has conditions for.
func conditionalNames(p *specs.LinuxSeccomp) []string {
	set := map[string]bool{}
	for _, s := range p.Syscalls {
		for _, n := range s.Names {
			set[n] = set[n] || len(s.Args) > 0
		}
	}
	maps.DeleteFunc(set, func(_ string, conditional bool) bool { return !conditional })
	return slices.Sorted(maps.Keys(set))
}

// argumentsFor are arguments on both sides of everything that p compares those of
// name with: each combination of them.
func argumentsFor(p *specs.LinuxSeccomp, name string, only32 bool) [][6]uint64 {
	values := map[uint]map[uint64]bool{}
	for _, s := range p.Syscalls {
		if !slices.Contains(s.Names, name) {
			continue
		}
		for _, a := range s.Args {
			if values[a.Index] == nil {
				values[a.Index] = map[uint64]bool{}
			}
			for _, v := range around(a) {
				if only32 {
					v &= 1<<32 - 1
				}
				values[a.Index][v] = true
			}
		}
	}
	out := [][6]uint64{{}}
	for _, index := range slices.Sorted(maps.Keys(values)) {
		var more [][6]uint64
		for _, args := range out {
			for v := range values[index] {
				args[index] = v
				more = append(more, args)
			}
		}
		out = more
	}
	return out
}

// around are values near what a compares with, in each half by itself.
func around(a specs.LinuxSeccompArg) []uint64 {
	out := []uint64{0, 1<<64 - 1}
	for _, v := range []uint64{a.Value, a.ValueTwo, a.Value | a.ValueTwo, ^a.Value | a.ValueTwo} {
		for _, near := range []uint64{v, v - 1, v + 1} {
			out = append(out, near, near^1<<32, near+1<<32, near-1<<32, near&(1<<32-1), near&^(1<<32-1), near^1<<63)
		}
	}
	if a.Op == specs.OpMaskedEqual {
		for bit := range 64 {
			out = append(out, a.ValueTwo^1<<bit)
		}
	}
	return out
}

// explainer knows the differences that are meant, by name.
type explainer struct {
	def    uint32
	listed map[specs.Arch]bool
	top    map[specs.Arch]uint32 // the largest number that the profile names
	// unknown are the calls that the profile names and this libseccomp does not know.
	unknown map[specs.Arch]map[uint32]bool
	// large are the calls that it compares with what is more than 32 bits.
	large  map[specs.Arch]map[uint32]bool
	counts map[string]int
}

func newExplainer(t *testing.T, p *specs.LinuxSeccomp, unknown []string) *explainer {
	t.Helper()
	def, err := actionOf(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		t.Fatal(err)
	}
	e := &explainer{def: def, listed: map[specs.Arch]bool{}, top: map[specs.Arch]uint32{}, counts: map[string]int{},
		unknown: map[specs.Arch]map[uint32]bool{}, large: map[specs.Arch]map[uint32]bool{}}
	for _, a := range arches {
		e.listed[a.name] = slices.Contains(p.Architectures, a.name)
		e.unknown[a.name], e.large[a.name] = map[uint32]bool{}, map[uint32]bool{}
		byName := a.byName()
		for _, s := range p.Syscalls {
			for _, n := range s.Names {
				nr, ok := byName[n]
				e.top[a.name] = max(e.top[a.name], nr)
				if ok && slices.Contains(unknown, n) {
					e.unknown[a.name][nr] = true
				}
				if a.narrow && slices.ContainsFunc(s.Args, func(arg specs.LinuxSeccompArg) bool { return arg.Value>>32 != 0 }) {
					e.large[a.name][nr] = ok
					if m, ok := multiplexers[n]; ok {
						e.large[a.name][byName[m.call]] = true
					}
				}
			}
		}
	}
	return e
}

// table is that of the call's number, "" when we know none.
func table(c call) specs.Arch {
	switch {
	case c.arch == unix.AUDIT_ARCH_I386:
		return specs.ArchX86
	case c.arch == unix.AUDIT_ARCH_X86_64 && c.nr >= x32Bit && c.nr != 1<<32-1:
		return specs.ArchX32
	case c.arch == unix.AUDIT_ARCH_X86_64:
		return specs.ArchX86_64
	}
	return ""
}

func (e *explainer) explains(c call, ours, theirs uint32) bool {
	of, reason := table(c), ""
	switch {
	case !e.listed[of] && ours == unix.SECCOMP_RET_KILL_PROCESS && theirs == unix.SECCOMP_RET_KILL_THREAD:
		reason = "another architecture ends the process, not a thread of it"
	case e.listed[of] && c.nr > e.top[of] && ours == enosys && theirs == e.def:
		reason = "newer than the profile: ENOSYS, as runc adds to libseccomp's program"
	case e.large[of][c.nr]:
		reason = "arguments of 32 bits are below what has more: libseccomp cuts the value off"
	case of == specs.ArchX86 && c.nr == 117 && c.args[0]>>16 != 0:
		reason = "ipc: libseccomp takes a version in the upper half for another call"
	case e.unknown[of][c.nr] && theirs == e.def:
		reason = "newer than this libseccomp"
	}
	e.counts[reason]++
	return reason != ""
}
