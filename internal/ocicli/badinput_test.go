package ocicli

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// badInput is something wrong with a bundle or a command line.
type badInput struct {
	name string
	// prepare changes the rig; the command line that it returns is run then,
	// instead of `run`.
	prepare func(t *testing.T, r *rig) []string
	status  int
	want    string // of the line on standard error
	remedy  string // of the line after it; "" where there is none to give
}

// Whatever is wrong, the command ends with its status and one line that says so,
// and one with the remedy where there is one. Nothing is left. The same for root and for an
// ordinary user.
func TestBadInput(t *testing.T) {
	must(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	for _, who := range []someone{root, user} {
		for _, tt := range badInputs {
			t.Run(who.name+"/"+tt.name, func(t *testing.T) {
				r := newRig(t, who)
				args := tt.prepare(t, r)
				if args == nil {
					r.save(t)
				}
				if len(args) == 0 {
					args = []string{"run", "--bundle", r.bundle, r.id}
				}
				status, text := r.run(t, args...)
				said(t, status, text, tt)
				r.clean(t)
			})
		}
	}
}

// said checks the status and what was printed.
func said(t *testing.T, status int, text string, want badInput) {
	t.Helper()
	line, remedy, _ := strings.Cut(strings.TrimSuffix(text, "\n"), "\n")
	if status != want.status {
		t.Errorf("status %d, want %d: %q", status, want.status, text)
	}
	switch {
	case want.want == "":
		if text != "" {
			t.Errorf("printed %q", text)
		}
	case !strings.HasPrefix(line, "duplex: ") || !strings.Contains(line, want.want) || len(line) > 400:
		t.Errorf("printed %q, want %q", text, want.want)
	case (remedy == "") != (want.remedy == "") || !strings.Contains(remedy, want.remedy) || strings.Contains(remedy, "\n"):
		t.Errorf("remedy %q, want %q", remedy, want.remedy)
	}
}

// program makes the program's arguments something else.
func program(args ...string) func(*testing.T, *rig) []string {
	return func(_ *testing.T, r *rig) []string { r.spec.Process.Args = args; return nil }
}

// config makes config.json something else.
func config(text string) func(*testing.T, *rig) []string {
	return func(t *testing.T, r *rig) []string { r.config(t, []byte(text)); return []string{} }
}

// created has the container there before ARGS, in which ID is its id.
func created(args ...string) func(*testing.T, *rig) []string {
	return func(t *testing.T, r *rig) []string {
		r.create(t)
		return strings.Split(strings.ReplaceAll(strings.Join(args, "\n"), "ID", r.id), "\n")
	}
}

var badInputs = []badInput{
	{"config: empty", config(""), 125, "config.json", ""},
	{"config: cut short", config(`{"ociVersion":"1.0.2","process":{"args":["x"`), 125, "config.json", ""},
	{"config: another type", config(`{"ociVersion":"1.0.2","root":{"path":7}}`), 125, "config.json", ""},
	{"config: no JSON", config("\x7fELF\x00\x00"), 125, "config.json", ""},
	{"config: deep", config(strings.Repeat(`{"process":`, 100_000)), 125, "config.json", ""},
	{"config: no root", config(`{"ociVersion":"1.0.2"}`), 125, "root", ""},
	{"config: another version", config(`{"ociVersion":"9.0.0"}`), 125, "ociVersion", ""},
	{"config: a pipe", func(t *testing.T, r *rig) []string {
		must(t, unix.Mkfifo(filepath.Join(r.bundle, "config.json"), 0o644))
		return []string{}
	}, 125, "not a regular file", ""},
	{"config: none", func(*testing.T, *rig) []string { return []string{} }, 125, "no such file", ""},
	{"missing program", program("nothing"), 127, `"nothing": executable file not found in $PATH`, ""},
	{"missing program, create", func(t *testing.T, r *rig) []string {
		r.spec.Process.Args = []string{"/nothing"}
		r.save(t)
		return []string{"create", "--bundle", r.bundle, r.id}
	}, 127, `"/nothing": no such file or directory`, ""},
	{"foreign architecture", func(t *testing.T, r *rig) []string {
		arm := "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00\xb7\x00\x01\x00\x00\x00" + strings.Repeat("\x00", 40)
		must(t, os.WriteFile(filepath.Join(r.bundle, "rootfs/arm"), []byte(arm), 0o755))
		r.spec.Process.Args = []string{"/arm"}
		return nil
	}, 126, "exec format error", ""},
	{"bundle on a read-only disk", func(t *testing.T, r *rig) []string {
		r.save(t)
		r.mount(t, r.bundle, r.bundle, "", unix.MS_BIND, "")
		must(t, unix.Mount("", r.bundle, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
		return []string{}
	}, 125, "read-only file system", ""},
	{"full disk", func(t *testing.T, r *rig) []string {
		must(t, os.Mkdir(r.state, 0o755))
		r.mount(t, "tmpfs", r.state, "tmpfs", 0, fmt.Sprintf("size=64k,mode=755,uid=%d", r.who.uid))
		if err := os.WriteFile(filepath.Join(r.state, "full"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("filling the disk: %v", err)
		}
		return nil
	}, 125, "no space left on device", ""},
	{"id: a path", func(t *testing.T, r *rig) []string {
		r.save(t)
		return []string{"run", "--bundle", r.bundle, "../" + r.id}
	}, 125, "invalid container ID", ""},
	{"id: a path, delete", func(*testing.T, *rig) []string { return []string{"delete", "--force", "a/../../b"} }, 125, "invalid container ID", ""},
	{"id: unknown", func(*testing.T, *rig) []string { return []string{"start", "nobody"} }, 125, "does not exist", "'duplex oci list'"},
	{"second create", func(t *testing.T, r *rig) []string {
		r.create(t)
		return []string{"create", "--bundle", r.bundle, r.id}
	}, 125, "exists", "Take another id"},
	{"start twice", func(t *testing.T, r *rig) []string {
		r.spec.Process.Args = []string{"/bin/work", "wait"}
		r.create(t)
		r.must(t, "start", r.id)
		return []string{"start", r.id}
	}, 125, "already running", ""},
	{"delete of a created one", created("delete", "ID"), 125, "not stopped", "--force"},
	{"exec in one that ended", func(t *testing.T, r *rig) []string {
		r.spec.Process.Args = []string{"/bin/work", "wait"}
		r.create(t)
		r.must(t, "start", r.id)
		r.must(t, "kill", r.id, "KILL")
		r.ended(t)
		return []string{"exec", r.id, "/bin/work", "exit", "0"}
	}, 125, "cannot exec in a stopped container", ""},
	{"exec of nothing", func(t *testing.T, r *rig) []string {
		r.spec.Process.Args = []string{"/bin/work", "wait"}
		r.create(t)
		r.must(t, "start", r.id)
		return []string{"exec", r.id, "/nothing"}
	}, 127, "no such file or directory", ""},
	{"deleted rootfs", func(t *testing.T, r *rig) []string {
		must(t, os.RemoveAll(filepath.Join(r.bundle, "rootfs")))
		return nil
	}, 125, "root.path", ""},
	{"rootfs deleted before start", func(t *testing.T, r *rig) []string {
		r.create(t)
		must(t, os.RemoveAll(filepath.Join(r.bundle, "rootfs/bin")))
		return []string{"start", r.id}
	}, 127, "no such file or directory", ""},
	{"hook hangs", func(_ *testing.T, r *rig) []string {
		one := 1
		r.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: r.program, Args: []string{"work", "wait"}, Timeout: &one}}}
		return nil
	}, 125, "longer than its timeout of 1 s", ""},
	{"console socket: none", func(t *testing.T, r *rig) []string {
		r.spec.Process.Terminal = true
		r.save(t)
		return []string{"create", "--bundle", r.bundle, "--console-socket", filepath.Join(r.dir, "nothing"), r.id}
	}, 125, "console socket", ""},
	{"console socket: a file", func(t *testing.T, r *rig) []string {
		r.spec.Process.Terminal = true
		r.save(t)
		return []string{"create", "--bundle", r.bundle, "--console-socket", filepath.Join(r.bundle, "config.json"), r.id}
	}, 125, "console socket", ""},
	{"console socket: nobody accepts", func(t *testing.T, r *rig) []string { return r.consoleSocket(t, true) }, 125, "console socket", ""},
	{"console socket: nobody reads", func(t *testing.T, r *rig) []string { return r.consoleSocket(t, false) }, 7, "", ""},
	{"terminal for nobody", func(t *testing.T, r *rig) []string {
		r.spec.Process.Terminal = true
		r.save(t)
		return []string{"create", "--bundle", r.bundle, r.id}
	}, 125, "--console-socket", ""},
}

// mount mounts for the time of the test.
func (r *rig) mount(t *testing.T, source, dir, kind string, flags uintptr, data string) {
	t.Helper()
	must(t, unix.Mount(source, dir, kind, flags, data))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

// consoleSocket listens on a socket and reads nothing; full: its queue has no place.
func (r *rig) consoleSocket(t *testing.T, full bool) []string {
	t.Helper()
	r.spec.Process.Terminal = true
	r.save(t)
	path := filepath.Join(r.dir, "console.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	must(t, os.Chmod(path, 0o777))
	must(t, unix.Listen(fd, 0))
	if full {
		conn, err := net.Dial("unix", path)
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
	}
	return []string{"run", "--bundle", r.bundle, "--console-socket", path, r.id}
}

// An ordinary user's container, through its life.
func TestWithoutRoot(t *testing.T) {
	must(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	r := newRig(t, user)
	r.spec.Process.Args = []string{"/bin/work", "wait"}
	r.create(t)
	r.must(t, "state", r.id)
	r.must(t, "start", r.id)
	if status, text := r.run(t, "exec", r.id, "/bin/work", "exit", "9"); status != 9 || text != "" {
		t.Errorf("exec: %d, %q", status, text)
	}
	r.must(t, "kill", r.id, "KILL")
	r.ended(t)
	r.must(t, "delete", r.id)
	r.left = nil
	r.clean(t)
}

// A hook that hangs and has no timeout ends with the runtime, when that is asked
// to.
func TestHookHangsForever(t *testing.T) {
	must(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	for _, who := range []someone{root, user} {
		r := newRig(t, who)
		fifo := filepath.Join(r.dir, "fifo")
		must(t, unix.Mkfifo(fifo, 0o666))
		must(t, os.Chmod(fifo, 0o666))
		r.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: r.program, Args: []string{"work", "hang", fifo}}}}
		r.save(t)
		cmd := r.start(t, "run", "--bundle", r.bundle, r.id)
		hangs := make(chan error, 1)
		go func() {
			f, err := os.Open(fifo) // until the hook opens it
			if err == nil {
				err = f.Close()
			}
			hangs <- err
		}()
		select {
		case err := <-hangs:
			must(t, err)
		case <-time.After(time.Minute):
			t.Error("the hook does not run")
		}
		must(t, cmd.Process.Signal(syscall.SIGTERM))
		status, text := r.end(t, cmd)
		said(t, status, text, badInput{status: 128 + int(unix.SIGTERM)})
		r.clean(t)
	}
}

// Without delegation: a user's limits cannot be kept, without limits the bundle
// runs; a user's bundle without a user namespace says what it needs.
func TestNoRights(t *testing.T) {
	must(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	limit := int64(64 << 20)
	for name, tt := range map[string]badInput{
		"no limit": {prepare: func(*testing.T, *rig) []string { return nil }, status: 7},
		"limit": {prepare: func(_ *testing.T, r *rig) []string {
			r.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
			return nil
		}, status: 125, want: "cgroup"},
		"no user namespace": {prepare: func(_ *testing.T, r *rig) []string {
			l := r.spec.Linux
			l.Namespaces, l.UIDMappings, l.GIDMappings = l.Namespaces[:len(l.Namespaces)-1], nil, nil
			return nil
		}, status: 125, want: "without root the bundle has to have a user namespace", remedy: "'duplex oci spec --rootless'"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, user)
			tt.prepare(t, r)
			r.save(t)
			status, text := r.run(t, "run", "--bundle", r.bundle, r.id)
			said(t, status, text, tt)
			r.clean(t)
		})
	}
}
