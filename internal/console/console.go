// Package console makes sense of a guest's serial console: it keeps the end of
// what a kernel printed, finds the line that says why it ended, and makes guest
// text safe to show on a terminal.
package console

import (
	"io"
	"strings"
	"sync"

	"github.com/duplex-run/duplex/internal/lazyregexp"
)

// tailSize bounds what a Tail keeps, in bytes.
const tailSize = 64 << 10

// Tail keeps the end of what is written to it. The zero Tail is ready to use;
// its methods may be called from several goroutines.
type Tail struct {
	// Also gets everything that is written, until it fails; may be nil. Set it
	// before the first Write.
	Also io.Writer

	mu  sync.Mutex
	buf []byte
}

// Write implements io.Writer and never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.Also != nil {
		if _, err := t.Also.Write(p); err != nil {
			t.Also = nil
		}
	}
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// String returns what was kept, as the guest wrote it.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

var (
	panicLine = lazyregexp.New(`Kernel panic - not syncing: [^\r\n]*`)
	agentLine = lazyregexp.New(`duplex-agent: [^\r\n]*`)
)

// Panic returns the line with which a kernel panicked, or "".
func Panic(text string) string { return Printable(panicLine().FindString(text)) }

// Verdict returns the line that says why the machine ended: the kernel's panic,
// the agent's last words, or else the last line of all.
func Verdict(text string) string {
	if line := Panic(text); line != "" {
		return line
	}
	if lines := agentLine().FindAllString(text, -1); len(lines) > 0 {
		return Printable(lines[len(lines)-1])
	}
	lines := Lines(text, 1)
	if len(lines) == 0 {
		return ""
	}
	return lines[0]
}

// Lines returns the last n lines that are not blank, printable.
func Lines(text string, n int) []string {
	var out []string
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(Printable(line), " "); line != "" {
			out = append(out, line)
		}
	}
	return out[max(0, len(out)-n):]
}

// maxLine bounds a Printable line, in bytes.
const maxLine = 300

// Printable drops the control characters of a line, so that a guest cannot write
// escape sequences to the user's terminal, and what is beyond 300 bytes.
func Printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), maxLine)], "")
}
