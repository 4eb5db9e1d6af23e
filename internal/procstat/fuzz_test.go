package procstat

import (
	"bytes"
	"os"
	"testing"
)

// What the kernel says of a process, whose name is the process's own choice, is
// read or refused.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"stat", "io", "net/dev"} {
		if data, err := os.ReadFile("/proc/self/" + name); err == nil {
			f.Add(data)
		}
	}
	f.Add([]byte("1 () 9) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"))
	f.Add([]byte("a: 1 2 3 4 5 6 7 8 9\neth0:9223372036854775807 0 0 0 0 0 0 0 9\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := parse(data); err == nil && !bytes.ContainsAny(data, "0123456789") {
			t.Errorf("read from %q", data)
		}
		if _, _, err := parseStorage(data); err == nil && !bytes.Contains(data, []byte("read_bytes")) {
			t.Errorf("read from %q", data)
		}
		if in, out, err := parseNetwork(bytes.NewReader(data)); err == nil && in|out != 0 && !bytes.Contains(data, []byte(":")) {
			t.Errorf("read from %q", data)
		}
	})
}
