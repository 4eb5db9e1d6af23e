package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Plain containers are run by the small program; it becomes all of duplex for those
// that take more.
func TestSmallProgram(t *testing.T) {
	for _, tt := range []struct {
		run   []string
		whole bool
	}{
		{[]string{"run", "--container"}, false},
		{[]string{"run", "-e", "A=1", "--container", "--network=host", "--timeout=1m"}, false},
		{[]string{"run", "--container", "--network=user"}, true},
		{[]string{"run", "--container", "--cap-drop=ALL", "--cap-add=CHOWN"}, true},
	} {
		p := startSleep(t, tt.run)
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := bytes.Cut(line, []byte{0})
		if whole := filepath.Base(string(name)) == "duplex-whole"; whole != tt.whole {
			t.Errorf("%q: argv[0] is %s, want the whole: %v", tt.run, name, tt.whole)
		}
		if err := p.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		waitStatus(t, p)
	}
}
