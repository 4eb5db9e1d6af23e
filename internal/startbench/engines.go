package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The engines, as the report names them.
const (
	duplexOCI = "duplex oci run"
	duplexRun = "duplex run --container"
	crunRun   = "crun run"
	runcRun   = "runc run"
	bwrapRun  = "bubblewrap"
)

// engine is one way to run the bundle's program.
type engine struct {
	name string
	// argv is its command for the container id.
	argv func(id string) []string
	// version is the command that says it.
	version []string
	// file is opened as descriptor 3 for the process, "" for none.
	file string
}

// engines are all of them; dir holds the bundle, and the state of each engine.
func engines(duplex, dir string, withSeccomp bool) []engine {
	state := func(name string) string { return filepath.Join(dir, name) }
	rootfs := filepath.Join(dir, "rootfs")
	list := []engine{
		{name: duplexOCI, version: []string{duplex, "version"}, argv: func(id string) []string {
			return []string{duplex, "oci", "--root", state("duplex"), "run", "--bundle", dir, id}
		}},
		{name: duplexRun, version: []string{duplex, "version"}, argv: func(string) []string {
			return []string{duplex, "run", "--container", "rootfs:" + rootfs, "/bin/true"}
		}},
		{name: crunRun, version: []string{"crun", "--version"}, argv: func(id string) []string {
			return []string{"crun", "--root", state("crun"), "run", "--bundle", dir, id}
		}},
		{name: runcRun, version: []string{"runc", "--version"}, argv: func(id string) []string {
			return []string{"runc", "--root", state("runc"), "run", "--bundle", dir, id}
		}},
		{name: bwrapRun, version: []string{"bwrap", "--version"}, argv: bwrap(rootfs, withSeccomp)},
	}
	if withSeccomp {
		list[4].file = filepath.Join(dir, "profile.bpf")
	}
	return list
}

// bwrap is what comes nearest to the bundle: the same namespaces, file systems,
// masks, capabilities and filter, but no cgroup, no device list, no state, and
// /sys from the host, read-only.
func bwrap(rootfs string, withSeccomp bool) func(string) []string {
	argv := []string{"bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup",
		"--hostname", "duplex", "--die-with-parent", "--new-session", "--clearenv",
		"--bind", rootfs, "/", "--proc", "/proc", "--dev", "/dev", "--mqueue", "/dev/mqueue", "--ro-bind", "/sys", "/sys"}
	for _, p := range dockerMasks {
		st, err := os.Stat(p)
		switch {
		case err != nil:
		case st.IsDir():
			argv = append(argv, "--tmpfs", p, "--remount-ro", p)
		default:
			argv = append(argv, "--ro-bind", "/dev/null", p)
		}
	}
	for _, p := range dockerReadOnly {
		if _, err := os.Stat(p); err == nil {
			argv = append(argv, "--ro-bind", p, p)
		}
	}
	argv = append(argv, "--cap-drop", "ALL")
	for _, c := range strings.Fields("CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP " +
		"NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE") {
		argv = append(argv, "--cap-add", "CAP_"+c)
	}
	if withSeccomp {
		argv = append(argv, "--seccomp", "3")
	}
	argv = append(argv, "/bin/true")
	return func(string) []string { return argv }
}

// versionOf returns the first line of what e says of itself.
func (e engine) versionOf(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, e.version[0], e.version[1:]...).Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w (scripts/setup-startbench installs the other engines)", e.name, err)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return string(line), nil
}

// command is one run of the engine, not started; close its extra files after.
func (e engine) command(ctx context.Context, id string) (*exec.Cmd, error) {
	argv := e.argv(id)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	if e.file == "" {
		return cmd, nil
	}
	f, err := os.Open(e.file)
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = []*os.File{f}
	return cmd, nil
}

func closeFiles(cmd *exec.Cmd) {
	for _, f := range cmd.ExtraFiles {
		_ = f.Close()
	}
}
