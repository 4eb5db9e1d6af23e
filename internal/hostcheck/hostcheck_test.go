package hostcheck

import (
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	Child()
	os.Exit(m.Run())
}

func TestEveryCheckExplainsItself(t *testing.T) {
	checks := append(Container(), TUN(), Lab())
	for _, c := range checks {
		if c.Name == "" || c.Detail == "" {
			t.Errorf("%+v: a check names itself and gives its evidence", c)
		}
		if c.State == Fail && c.Remedy == "" {
			t.Errorf("%s failed without a remedy: %s", c.Name, c.Detail)
		}
		if strings.ContainsRune(c.Detail+c.Remedy, '\n') {
			t.Errorf("%s: a check is one line, got %q, %q", c.Name, c.Detail, c.Remedy)
		}
	}
}

// The kernel that runs these tests mounts overlays for root: the check must see
// that by doing it, and leave no mount behind.
func TestOverlayIsTriedAndLeavesNothing(t *testing.T) {
	before := mounts(t)
	if c := Overlay(); c.State != OK {
		t.Errorf("overlay: %s: %s", c.State, c.Detail)
	}
	if after := mounts(t); after != before {
		t.Errorf("mounts changed:\n%s\n%s", before, after)
	}
}

func mounts(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
