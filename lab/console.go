package lab

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"sync"
)

// tailSize bounds what is kept of a console, in bytes.
const tailSize = 64 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	buf  []byte
	also io.Writer // gets everything; may be nil
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.also != nil {
		if _, err := t.also.Write(p); err != nil {
			t.also = nil
		}
	}
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// String returns what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

var (
	panicLine = regexp.MustCompile(`Kernel panic - not syncing: [^\r\n]*`)
	agentLine = regexp.MustCompile(`duplex-agent: [^\r\n]*`)
)

// verdict is the line of a console that says why the machine ended, or its last
// line.
func verdict(console string) string {
	for _, re := range []*regexp.Regexp{panicLine, agentLine} {
		if line := re.FindString(console); line != "" {
			return printable(line)
		}
	}
	lines := bytes.Split(bytes.TrimSpace([]byte(console)), []byte("\n"))
	return printable(string(lines[len(lines)-1]))
}

// printable keeps a guest from writing escape sequences to the user's terminal.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), 300)]
}
