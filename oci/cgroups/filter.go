package cgroups

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// Registers of eBPF (Documentation/bpf/standardization/instruction-set.rst).
const (
	r0 = iota
	r1
	r2
	r3
	r4
	r5
)

// struct bpf_cgroup_dev_ctx (linux/bpf.h): what the program is called with.
const (
	offsetAccessType = 0 // access << 16 | type
	offsetMajor      = 4
	offsetMinor      = 8
	typeBlock        = 1
	typeChar         = 2
)

// insn encodes one instruction of eight bytes.
func insn(code uint8, dst, src uint8, off int16, imm int32) []byte {
	out := []byte{code, src<<4 | dst}
	out = binary.NativeEndian.AppendUint16(out, uint16(off))
	return binary.NativeEndian.AppendUint32(out, uint32(imm))
}

const (
	opLoadWord = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	opMovReg   = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X
	opMovImm   = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
	opAndImm   = unix.BPF_ALU64 | unix.BPF_AND | unix.BPF_K
	opShrImm   = unix.BPF_ALU64 | unix.BPF_RSH | unix.BPF_K
	opJneImm   = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K
	opJeqImm   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opJneReg   = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_X
	opExit     = unix.BPF_JMP | unix.BPF_EXIT
)

// filter makes a program of type BPF_PROG_TYPE_CGROUP_DEVICE: the last rule
// that matches decides, and without one access is denied. An allowing rule
// matches when it has all of what is asked for, a denying one when it has any.
func filter(rules []rule) []byte {
	prog := slices.Concat(
		insn(opLoadWord, r2, r1, offsetAccessType, 0),
		insn(opMovReg, r3, r2, 0, 0),
		insn(opAndImm, r2, 0, 0, 0xffff), // r2: type
		insn(opShrImm, r3, 0, 0, 16),     // r3: access
		insn(opLoadWord, r4, r1, offsetMajor, 0),
		insn(opLoadWord, r5, r1, offsetMinor, 0),
	)
	for _, r := range slices.Backward(merge(rules)) {
		prog = append(prog, r.code()...)
	}
	return slices.Concat(prog, insn(opMovImm, r0, 0, 0, 0), insn(opExit, 0, 0, 0, 0))
}

// code returns the instructions of one rule; what does not match skips them.
func (r rule) code() []byte {
	type test struct {
		op       uint8
		dst, src uint8
		imm      int32
		jump     bool
	}
	kind := int32(typeChar)
	if r.kind == 'b' {
		kind = typeBlock
	}
	tests := []test{{opJneImm, r2, 0, kind, true}}
	if r.access != accessMknod|accessRead|accessWrite {
		tests = append(tests, test{opMovReg, r1, r3, 0, false}, test{opAndImm, r1, 0, int32(r.access), false})
		if r.allow {
			tests = append(tests, test{opJneReg, r1, r3, 0, true})
		} else {
			tests = append(tests, test{opJeqImm, r1, 0, 0, true})
		}
	}
	if r.major >= 0 {
		tests = append(tests, test{opJneImm, r4, 0, int32(r.major), true})
	}
	if r.minor >= 0 {
		tests = append(tests, test{opJneImm, r5, 0, int32(r.minor), true})
	}
	verdict := int32(0)
	if r.allow {
		verdict = 1
	}
	var out []byte
	for i, t := range tests {
		skip := int16(0)
		if t.jump {
			skip = int16(len(tests) - i - 1 + 2) // over the rest and the verdict
		}
		out = append(out, insn(t.op, t.dst, t.src, skip, t.imm)...)
	}
	return slices.Concat(out, insn(opMovImm, r0, 0, 0, verdict), insn(opExit, 0, 0, 0, 0))
}

// merge drops what a later rule for every device overrides, and gives an allowing
// rule what earlier ones allow of the same devices, so that "r" and then "w"
// allow "rw".
func merge(rules []rule) []rule {
	var out []rule
	for _, r := range rules {
		if r.major < 0 && r.minor < 0 && r.access == accessMknod|accessRead|accessWrite {
			out = slices.DeleteFunc(out, func(o rule) bool { return o.kind == r.kind })
		}
		for _, o := range slices.Backward(out) {
			if !o.allow && o.kind == r.kind {
				break
			}
			if r.allow && o.kind == r.kind && o.major == r.major && o.minor == r.minor {
				r.access |= o.access
			}
		}
		out = append(out, r)
	}
	return out
}
