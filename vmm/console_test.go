package vmm

import (
	"context"
	"io"
	"testing"
)

// A prompt has no end of line, and whoever sits at the terminal waits for it.
func TestConsoleHandsOnAPrompt(t *testing.T) {
	r, w := io.Pipe()
	c := newConsole(w)
	read := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
			t.Fatalf("read %q, %v, want %q", got, err, want)
		}
	}
	for _, b := range []byte("login: ") {
		if _, err := c.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	read("login: ")
	_, _ = c.Write([]byte("root\n"))
	read("root\n")
	_, _ = c.Write([]byte("# "))
	read("# ")
	c.drain(context.Background())
	if n, err := c.Write([]byte("late\n")); n != 5 || err != nil {
		t.Errorf("after its end it takes %d, %v", n, err)
	}
}
