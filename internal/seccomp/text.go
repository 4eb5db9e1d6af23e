package seccomp

import (
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Text writes down everything that Compile reads of a profile: two profiles of the
// same text are the same program.
func Text(p *specs.LinuxSeccomp) []byte {
	b := make([]byte, 0, 16<<10)
	word := func(s string) { b = strconv.AppendQuote(b, s); b = append(b, ' ') }
	number := func(n uint64) { b = strconv.AppendUint(b, n, 10); b = append(b, ' ') }
	errno := func(n *uint) {
		if n != nil {
			number(uint64(*n))
		}
		b = append(b, '\n')
	}
	for _, a := range p.Architectures {
		word(string(a))
	}
	word(string(p.DefaultAction))
	errno(p.DefaultErrnoRet)
	for _, c := range p.Syscalls {
		for _, n := range c.Names {
			word(n)
		}
		b = append(b, ':')
		word(string(c.Action))
		for _, a := range c.Args {
			number(uint64(a.Index))
			number(a.Value)
			number(a.ValueTwo)
			word(string(a.Op))
		}
		b = append(b, ':')
		errno(c.ErrnoRet)
	}
	return b
}
