package ocicli

import (
	"bytes"
	"testing"

	"github.com/duplex-run/duplex/oci"
)

// CVE-2026-30892: exec --user 1 was user 0 in crun 1.19 to 1.26.
func TestCVE2026_30892(t *testing.T) {
	for user, want := range map[string][2]uint32{"1": {1, 0}, "0": {0, 0}, "1:0": {1, 0}, "1:2": {1, 2}, "1000:1000": {1000, 1000}, "4294967294": {4294967294, 0}} {
		c := &oci.Container{}
		c.Spec = oci.Example()
		a := &app{out: &bytes.Buffer{}, err: &bytes.Buffer{}, cmd: subcommand{name: "exec"}}
		var f ociExecFlags
		fs := a.flags()
		f.register(fs)
		if err := a.parse(fs, []string{"--user", user, "id", "prog"}); err != nil {
			t.Fatal(err)
		}
		p, err := f.makeProcess(c, fs)
		if err != nil || p.User.UID != want[0] || p.User.GID != want[1] {
			t.Errorf("--user %s: %+v, %v", user, p, err)
		}
	}
	for _, user := range []string{":", "a", "1:", "1:a", "-1", "+1", " 1", "1.0", "0x1", "4294967295", "4294967296", "1:2:3"} {
		f := ociExecFlags{user: user}
		a := &app{out: &bytes.Buffer{}, err: &bytes.Buffer{}, cmd: subcommand{name: "exec"}}
		fs := a.flags()
		c := &oci.Container{}
		c.Spec = oci.Example()
		if err := a.parse(fs, []string{"id", "prog"}); err != nil {
			t.Fatal(err)
		}
		if p, err := f.makeProcess(c, fs); err == nil {
			t.Errorf("--user %q: %+v", user, p.User)
		}
	}
}
