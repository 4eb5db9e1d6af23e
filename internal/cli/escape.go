package cli

import "io"

// escape is a terminal's input in raw mode. Ctrl-A X calls quit, Ctrl-A Ctrl-A
// is one Ctrl-A, as in QEMU; Ctrl-A and anything else is both.
type escape struct {
	in   io.Reader
	quit func()
	held bool // a Ctrl-A that may begin an escape
}

const ctrlA = 1

// Read implements io.Reader; after quit it returns io.EOF. p has at least two bytes.
func (e *escape) Read(p []byte) (int, error) {
	buf := make([]byte, len(p)/2) // each byte read may become two
	for {
		n, err := e.in.Read(buf)
		out := p[:0]
		for _, b := range buf[:n] {
			switch {
			case !e.held && b == ctrlA:
				e.held = true
				continue
			case e.held && (b == 'x' || b == 'X'):
				e.quit()
				return len(out), io.EOF
			case e.held && b != ctrlA:
				out = append(out, ctrlA)
			}
			e.held = false
			out = append(out, b)
		}
		if len(out) > 0 || err != nil {
			return len(out), err
		}
	}
}
