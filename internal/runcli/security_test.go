package runcli

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/container"
	"github.com/duplex-run/duplex/internal/workload"
)

func parseSecurity(iso workload.Isolation, args ...string) (container.Layers, []string, error) {
	a := &App{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}, Cmd: RunCommand}
	var f securityFlags
	fs := a.Flags()
	f.Register(fs)
	fs.String("hostname", "", "")
	if err := a.Parse(fs, args); err != nil {
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
