package console

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

const boot = "[    0.10] booting\r\n[    0.20] \x1b[31mred\x1b[0m alert\r\n\r\n"

func TestVerdict(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"blank", "\r\n \r\n", ""},
		{"last line", boot, "[    0.20] [31mred[0m alert"},
		{"panic", boot + "[    1.5] Kernel panic - not syncing: sysrq triggered crash\r\n[    1.6] CPU: 0\r\n",
			"Kernel panic - not syncing: sysrq triggered crash"},
		{"agent", "duplex-agent: first\r\nduplex-agent: mount /: no such device\r\n" + boot, "duplex-agent: mount /: no such device"},
		{"panic of the agent", "duplex-agent: odd\nKernel panic - not syncing: Attempted to kill init!\n",
			"Kernel panic - not syncing: Attempted to kill init!"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Verdict(c.text); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestLines(t *testing.T) {
	got := strings.Join(Lines("a\n\nb\r\nc", 2), "|")
	if got != "b|c" {
		t.Errorf("got %q", got)
	}
}

type failing struct{ n int }

func (f *failing) Write([]byte) (int, error) {
	f.n++
	return 0, errors.New("closed")
}

func TestTail(t *testing.T) {
	f := &failing{}
	tail := &Tail{Also: f}
	for range 3 {
		if n, err := tail.Write([]byte(strings.Repeat("x", tailSize/2) + "end")); n != tailSize/2+3 || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
	}
	if got := tail.String(); len(got) != tailSize || !strings.HasSuffix(got, "end") {
		t.Errorf("kept %d bytes", len(got))
	}
	if f.n != 1 {
		t.Errorf("a writer that failed was called %d times", f.n)
	}
}

func FuzzVerdict(f *testing.F) {
	f.Add(boot)
	f.Add("Kernel panic - not syncing: \xff\x1b]0;title\a")
	f.Fuzz(func(t *testing.T, text string) {
		line := Verdict(text)
		if len(line) > maxLine || strings.ContainsFunc(line, unicode.IsControl) || !utf8.ValidString(line) {
			t.Errorf("not printable: %q", line)
		}
	})
}
