package cli

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/container"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/oci"
)

func parseSecurity(iso workload.Isolation, args ...string) (container.Layers, []string, error) {
	a := &app{out: &bytes.Buffer{}, err: &bytes.Buffer{}, cmd: command{name: "run"}}
	var f securityFlags
	fs := a.flags()
	f.register(fs)
	fs.String("hostname", "", "")
	if err := a.parse(fs, args); err != nil {
		return container.Layers{}, nil, err
	}
	return f.parse(a, fs, iso)
}

// Each flag switches its layer, and says what that gives up.
func TestSecurityFlags(t *testing.T) {
	root := os.Geteuid() == 0
	for _, tt := range []struct {
		args string
		want container.Layers
		says string // of what it gives up; "" when it gives up nothing
	}{
		{"", container.Layers{}, ""},
		{"--security-opt seccomp=unconfined", container.Layers{NoSeccomp: true}, "every system call"},
		{"--security-opt seccomp:unconfined", container.Layers{NoSeccomp: true}, "every system call"},
		{"--security-opt landlock=unconfined", container.Layers{NoLandlock: true}, "abstract sockets"},
		{"--security-opt systempaths=unconfined", container.Layers{NoMasks: true}, "/proc and /sys"},
		{"--security-opt no-new-privileges=false", container.Layers{NewPrivileges: true}, "set-id"},
		{"--security-opt no-new-privileges", container.Layers{}, ""},
		{"--security-opt apparmor=mine", container.Layers{AppArmor: "mine"}, ""},
		{"--security-opt apparmor=unconfined", container.Layers{AppArmor: "unconfined"}, "no AppArmor"},
		{"--cap-add SYS_NICE,kill --cap-drop ALL", container.Layers{AddCaps: []string{"SYS_NICE", "kill"}, DropCaps: []string{"ALL"}}, "SYS_NICE"},
		{"--ipc host --uts=host --cgroupns host", container.Layers{HostIPC: true, HostUTS: true, HostCgroup: true}, "shared memory"},
		{"--userns private", container.Layers{UserNS: root}, ""},
	} {
		got, gives, err := parseSecurity(workload.Container, strings.Fields(tt.args)...)
		text := strings.Join(gives, "\n")
		if err != nil || !reflect.DeepEqual(nilLists(got), tt.want) || (tt.says == "") != (text == "") || !strings.Contains(text, tt.says) {
			t.Errorf("%s: %+v %q %v", tt.args, got, gives, err)
		}
		if args := strings.Fields(tt.args); len(args) > 0 {
			if _, _, err := parseSecurity(workload.VM, args...); err == nil || !strings.Contains(err.Error(), "for containers") {
				t.Errorf("%s of a microVM: %v", tt.args, err)
			}
		}
	}
	for _, args := range []string{"--security-opt x", "--security-opt seccomp=file.json", "--security-opt apparmor=", "--security-opt no-new-privileges=perhaps",
		"--pid container:x", "--uts host --hostname h", "--userns auto", "--cap-add NONE", "--pid host --userns private"} {
		if got, _, err := parseSecurity(workload.Container, strings.Fields(args)...); err == nil && (root || args != "--pid host --userns private") {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

func nilLists(l container.Layers) container.Layers {
	if len(l.AddCaps) == 0 {
		l.AddCaps = nil
	}
	if len(l.DropCaps) == 0 {
		l.DropCaps = nil
	}
	return l
}

// CVE-2026-30892: exec --user 1 was user 0 in crun 1.19 to 1.26.
func TestCVE2026_30892(t *testing.T) {
	for user, want := range map[string][2]uint32{"1": {1, 0}, "0": {0, 0}, "1:0": {1, 0}, "1:2": {1, 2}, "1000:1000": {1000, 1000}, "4294967294": {4294967294, 0}} {
		c := &oci.Container{}
		c.Spec = oci.Example()
		a := &app{out: &bytes.Buffer{}, err: &bytes.Buffer{}, cmd: command{name: "exec"}}
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
		a := &app{out: &bytes.Buffer{}, err: &bytes.Buffer{}, cmd: command{name: "exec"}}
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
