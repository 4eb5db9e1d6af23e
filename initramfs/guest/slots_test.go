package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Places without a driver are bound in their order, as many as are asked for.
func TestFillPlaces(t *testing.T) {
	bus := t.TempDir()
	bind := filepath.Join(bus, "drivers/virtio-mmio/bind")
	must(t, os.MkdirAll(filepath.Dir(bind), 0o755), os.Mkdir(filepath.Join(bus, "devices"), 0o755))
	for _, name := range []string{"LNRO0005:00", "LNRO0005:09", "LNRO0005:0a", "LNRO0005:0b", "PNP0C0C:00", "serial8250"} {
		must(t, os.Mkdir(filepath.Join(bus, "devices", name), 0o755))
	}
	must(t, os.Symlink("../../drivers/virtio-mmio", filepath.Join(bus, "devices", "LNRO0005:00", "driver")))
	for _, c := range []struct {
		n       int
		bound   string
		problem string
	}{
		{1, "LNRO0005:09", ""},
		{3, "LNRO0005:09LNRO0005:0aLNRO0005:0b", ""},
		{5, "LNRO0005:09LNRO0005:0aLNRO0005:0b", "2 more are needed"},
	} {
		must(t, os.WriteFile(bind, nil, 0o600))
		err := fillPlaces(bus, c.n)
		got, rerr := os.ReadFile(bind)
		must(t, rerr)
		if string(got) != c.bound || (err == nil) != (c.problem == "") || err != nil && !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%d: bound %q, %v; want %q, %q", c.n, got, err, c.bound, c.problem)
		}
	}
	must(t, os.Remove(bind))
	if err := fillPlaces(bus, 1); err == nil {
		t.Error("no error without a driver")
	}
}
