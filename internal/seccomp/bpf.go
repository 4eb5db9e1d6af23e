package seccomp

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// block is a piece of program that is entered at its first instruction and ends
// with a return, or behind its last instruction.
type block []unix.SockFilter

// maxJump is how far a conditional jump reaches: its offsets are 8 bits.
const maxJump = 255

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func ret(action uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
}

func and(mask uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask}
}

// jump skips yes instructions when the accumulator compares to k, else no.
func jump(op uint16, k uint32, yes, no int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, K: k, Jt: uint8(yes), Jf: uint8(no)}
}

func jumpAlways(skip int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(skip)}
}

// compareAll makes a block that runs into the instruction behind it when all
// comparisons hold, and otherwise skips that instruction.
func compareAll(args []specs.LinuxSeccompArg, narrow bool) (block, error) {
	var code block
	for i := len(args) - 1; i >= 0; i-- {
		how := compare
		if narrow {
			how = compareNarrow
		}
		one, err := how(args[i], len(code)+1)
		if err != nil {
			return nil, err
		}
		code = append(one, code...)
	}
	return code, nil
}

// compare makes a block that runs into what is behind it when arg holds, and
// otherwise skips skip instructions of that. Arguments are 64 bits and compared
// unsigned, in two halves.
func compare(arg specs.LinuxSeccompArg, skip int) (block, error) {
	if arg.Index > 5 || skip > maxJump-4 {
		return nil, fmt.Errorf("compile seccomp profile: argument %d, %d instructions to skip", arg.Index, skip)
	}
	low := uint32(offsetArgs + 8*arg.Index)
	high := low + 4
	vLow, vHigh := uint32(arg.Value), uint32(arg.Value>>32)
	switch arg.Op {
	case specs.OpEqualTo:
		return block{load(high), jump(unix.BPF_JEQ, vHigh, 0, skip+2), load(low), jump(unix.BPF_JEQ, vLow, 0, skip)}, nil
	case specs.OpNotEqual:
		return block{load(high), jump(unix.BPF_JEQ, vHigh, 0, 2), load(low), jump(unix.BPF_JEQ, vLow, skip, 0)}, nil
	case specs.OpGreaterThan:
		return ordered(low, high, unix.BPF_JGT, vLow, vHigh, 0, skip), nil
	case specs.OpGreaterEqual:
		return ordered(low, high, unix.BPF_JGE, vLow, vHigh, 0, skip), nil
	case specs.OpLessThan: // not greater or equal
		return ordered(low, high, unix.BPF_JGE, vLow, vHigh, skip, 0), nil
	case specs.OpLessEqual:
		return ordered(low, high, unix.BPF_JGT, vLow, vHigh, skip, 0), nil
	case specs.OpMaskedEqual:
		wLow, wHigh := uint32(arg.ValueTwo), uint32(arg.ValueTwo>>32)
		return block{
			load(high), and(vHigh), jump(unix.BPF_JEQ, wHigh, 0, skip+3),
			load(low), and(vLow), jump(unix.BPF_JEQ, wLow, 0, skip),
		}, nil
	}
	return nil, fmt.Errorf("compile seccomp profile: operator %q is not known", arg.Op)
}

// compareNarrow is compare for calls whose arguments are 32 bits. What does not
// fit into these is larger than any of them.
func compareNarrow(arg specs.LinuxSeccompArg, skip int) (block, error) {
	if arg.Index > 5 || skip > maxJump-4 {
		return nil, fmt.Errorf("compile seccomp profile: argument %d, %d instructions to skip", arg.Index, skip)
	}
	low, v, w := uint32(offsetArgs+8*arg.Index), uint32(arg.Value), uint32(arg.ValueTwo)
	always, never := block{}, block{jumpAlways(skip)}
	large := arg.Value>>32 != 0
	switch arg.Op {
	case specs.OpEqualTo, specs.OpGreaterThan, specs.OpGreaterEqual:
		if large {
			return never, nil
		}
	case specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual:
		if large {
			return always, nil
		}
	}
	switch arg.Op {
	case specs.OpEqualTo:
		return block{load(low), jump(unix.BPF_JEQ, v, 0, skip)}, nil
	case specs.OpNotEqual:
		return block{load(low), jump(unix.BPF_JEQ, v, skip, 0)}, nil
	case specs.OpGreaterThan:
		return block{load(low), jump(unix.BPF_JGT, v, 0, skip)}, nil
	case specs.OpGreaterEqual:
		return block{load(low), jump(unix.BPF_JGE, v, 0, skip)}, nil
	case specs.OpLessThan:
		return block{load(low), jump(unix.BPF_JGE, v, skip, 0)}, nil
	case specs.OpLessEqual:
		return block{load(low), jump(unix.BPF_JGT, v, skip, 0)}, nil
	case specs.OpMaskedEqual:
		if arg.ValueTwo>>32 != 0 {
			return never, nil
		}
		return block{load(low), and(v), jump(unix.BPF_JEQ, w, 0, skip)}, nil
	}
	return nil, fmt.Errorf("compile seccomp profile: operator %q is not known", arg.Op)
}

// ordered compares the argument with op, BPF_JGT or BPF_JGE, and skips yes or
// no instructions behind itself.
func ordered(low, high uint32, op uint16, vLow, vHigh uint32, yes, no int) block {
	return block{
		load(high),
		jump(unix.BPF_JGT, vHigh, yes+3, 0),
		jump(unix.BPF_JEQ, vHigh, 0, no+2),
		load(low),
		jump(op, vLow, yes, no),
	}
}
