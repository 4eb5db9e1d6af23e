package oci

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

func TestLifecycle(t *testing.T) {
	b := newBundle(t, "wait")
	c := b.create(t)
	status := func() specs.ContainerState {
		d, err := Open(b.root, c.ID, false)
		must(t, err)
		return d.Status()
	}
	if s := status(); s != specs.StateCreated {
		t.Fatalf("after create: %s", s)
	}
	if err := c.Delete(t.Context(), false, nil); err == nil || status() != specs.StateCreated {
		t.Errorf("delete of a created container: %v, then %s", err, status())
	}
	must(t, c.Start(t.Context()))
	if s := status(); s != specs.StateRunning {
		t.Fatalf("after start: %s", s)
	}
	if err := c.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "already running") {
		t.Errorf("second start: %v", err)
	}
	o := b.options(t, nil)
	o.ID = c.ID
	if _, err := Create(t.Context(), o); !errors.Is(err, ErrExist) {
		t.Errorf("second create with the same id: %v", err)
	}
	must(t, c.Pause())
	if s := status(); s != statePaused {
		t.Errorf("after pause: %s", s)
	}
	must(t, c.Resume())
	pids, err := c.Pids()
	must(t, err)
	if len(pids) != 1 || pids[0] != c.Pid {
		t.Errorf("processes %v, want %d alone", pids, c.Pid)
	}
	must(t, c.Kill(unix.SIGKILL, false))
	c.killInit() // waits for the end
	if s := status(); s != specs.StateStopped {
		t.Errorf("after kill: %s", s)
	}
	if err := c.Kill(unix.SIGTERM, false); !errors.Is(err, errNotRunning) {
		t.Errorf("kill of a stopped container: %v", err)
	}
	if _, err := c.Exec(t.Context(), ExecOptions{Process: c.ExecProcess([]string{"/bin/work", "exit", "0"})}); err == nil {
		t.Error("exec in a stopped container: no error")
	}
}

func TestExec(t *testing.T) {
	b := newBundle(t, "wait")
	c := b.create(t)
	must(t, c.Start(t.Context()))
	execs(t, c)
	_, err := c.Exec(t.Context(), ExecOptions{Process: c.ExecProcess([]string{"/bin/nothing"})})
	if we := (*workload.Error)(nil); !errors.As(err, &we) || we.Status != workload.StatusNotFound {
		t.Errorf("a program that is not there: %v", err)
	}
}

// execs runs programs beside a container's own.
func execs(t *testing.T, c *Container) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "out")
	must(t, err)
	exec := func(args ...string) (int, error) {
		return c.Exec(t.Context(), ExecOptions{Process: c.ExecProcess(args), Stdio: [3]*os.File{nil, out, out}})
	}
	if status, err := exec("/bin/work", "exit", "42"); status != 42 || err != nil {
		t.Errorf("exit 42: %d, %v", status, err)
	}
	if status, err := exec("/bin/work", "cat", "/proc/1/comm"); status != 0 || err != nil {
		t.Errorf("cat: %d, %v", status, err)
	}
	if text, _ := os.ReadFile(out.Name()); string(text) != "work\n" {
		t.Errorf("process 1 of the container is %q", text)
	}
}

// The hooks run in the order of the specification, with the state it says on
// their standard input.
func TestHooks(t *testing.T) {
	b := newBundle(t, "hook", "/log", "process")
	log := filepath.Join(b.dir, "rootfs", "log")
	host := filepath.Join(b.dir, "rootfs", "bin", "work")
	hook := func(path, file, label string) []specs.Hook {
		return []specs.Hook{{Path: path, Args: []string{"work", "hook", file, label}}}
	}
	b.spec.Process.Args = []string{"/bin/work", "exit", "0"}
	b.spec.Hooks = &specs.Hooks{
		//lint:ignore SA1019 deprecated, and still in bundles
		Prestart:        hook(host, log, "prestart"),
		CreateRuntime:   hook(host, log, "createRuntime"),
		CreateContainer: hook(host, log, "createContainer"), // before pivot_root: the host's paths
		StartContainer:  hook("/bin/work", "/log", "startContainer"),
		Poststart:       hook(host, log, "poststart"),
		Poststop:        hook(host, log, "poststop"),
	}
	b.output(t)
	text, err := os.ReadFile(log)
	must(t, err)
	want := "prestart created\ncreateRuntime created\ncreateContainer created\nstartContainer created\npoststart running\npoststop stopped\n"
	if string(text) != want {
		t.Errorf("got\n%swant\n%s", text, want)
	}
}

// Whatever is wrong with a bundle, it is said in one line, in time, and nothing
// is left (run checks that).
func TestBadInput(t *testing.T) {
	one := 1
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, b *bundle)
		status int // 0: duplex's own failure
		want   string
	}{
		{"missing program", func(_ *testing.T, b *bundle) { b.spec.Process.Args = []string{"nothing"} },
			workload.StatusNotFound, `exec: "nothing": executable file not found in $PATH`},
		{"missing path", func(_ *testing.T, b *bundle) { b.spec.Process.Args = []string{"/nothing"} },
			workload.StatusNotFound, `exec: "/nothing": no such file or directory`},
		{"a directory", func(_ *testing.T, b *bundle) { b.spec.Process.Args = []string{"/bin"} },
			workload.StatusNotExecutable, "is a directory"},
		{"foreign architecture", func(t *testing.T, b *bundle) {
			arm := "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00\xb7\x00\x01\x00\x00\x00" + strings.Repeat("\x00", 40)
			must(t, os.WriteFile(filepath.Join(b.dir, "rootfs", "arm"), []byte(arm), 0o755))
			b.spec.Process.Args = []string{"/arm"}
		}, workload.StatusNotExecutable, "exec format error"},
		{"deleted rootfs", func(t *testing.T, b *bundle) { must(t, os.RemoveAll(filepath.Join(b.dir, "rootfs"))) },
			0, "root.path"},
		{"a hook that hangs", func(_ *testing.T, b *bundle) {
			b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: filepath.Join(b.dir, "rootfs/bin/work"), Args: []string{"work", "wait"}, Timeout: &one}}}
		}, 0, "longer than its timeout of 1 s"},
		{"a hook that fails", func(_ *testing.T, b *bundle) {
			b.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/work", Args: []string{"work", "fail"}}}}
		}, 0, "startContainer hook 0 (/bin/work): exit status 3: of no use"},
		{"a hook that is not there", func(_ *testing.T, b *bundle) {
			b.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/nothing/there"}}}
		}, 0, "createContainer hook 0 (/nothing/there)"},
		{"a terminal for nobody", func(_ *testing.T, b *bundle) { b.spec.Process.Terminal = true },
			0, "give --console-socket"},
		{"a source that is not there", func(_ *testing.T, b *bundle) {
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/x", Source: "/nothing/there", Options: []string{"bind"}})
		}, 0, "mount: /x: source"},
		{"an unknown file system", func(_ *testing.T, b *bundle) {
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/x", Type: "floppyfs"})
		}, 0, "floppyfs: no such device"},
		{"a namespace of another kind", func(_ *testing.T, b *bundle) {
			b.spec.Linux.Namespaces[1].Path = "/proc/self/ns/uts"
		}, 0, "/proc/self/ns/uts is not one"},
		{"a namespace that is no namespace", func(_ *testing.T, b *bundle) { b.spec.Linux.Namespaces[1].Path = "/dev/null" },
			0, "/dev/null is not one"},
		{"no such limit", func(_ *testing.T, b *bundle) {
			b.spec.Linux.Resources.HugepageLimits = []specs.LinuxHugepageLimit{{Pagesize: "3MB", Limit: 1}}
		}, 0, "hugetlb"},
		{"/proc is a link", func(t *testing.T, b *bundle) {
			must(t, os.Symlink("bin", filepath.Join(b.dir, "rootfs", "proc")))
		}, 0, "symbolic link"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBundle(t, "exit", "0")
			tt.change(t, b)
			_, _, err := b.run(t)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
			var we *workload.Error
			if errors.As(err, &we) != (tt.status != 0) || we != nil && we.Status != tt.status {
				t.Errorf("status %v, want %d", we, tt.status)
			}
		})
	}
}

func TestIDs(t *testing.T) {
	for _, id := range []string{"", ".", "..", "a/b", "../x", "a b", "ü", "a\x00", strings.Repeat("x", 256)} {
		if _, err := Create(t.Context(), CreateOptions{Root: t.TempDir(), ID: id, Bundle: newBundleDir(t)}); err == nil || !strings.Contains(err.Error(), "invalid container ID") {
			t.Errorf("%q: %v", id, err)
		}
		if _, err := Open(t.TempDir(), id, false); err == nil || errors.Is(err, ErrNotExist) {
			t.Errorf("open %q: %v", id, err)
		}
	}
	if _, err := Open(t.TempDir(), "a", true); !errors.Is(err, ErrNotExist) {
		t.Errorf("a container that is not there: %v", err)
	}
}

func newBundleDir(t *testing.T) string {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "rootfs"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(minimal), 0o644))
	return dir
}

// A console socket that takes the connection and reads nothing holds nobody up.
func TestConsoleSocketNobodyReads(t *testing.T) {
	b := newBundle(t, "exit", "0")
	b.spec.Process.Terminal = true
	b.save(t)
	o := b.options(t, nil)
	o.ConsoleSocket = filepath.Join(b.dir, "console.sock")
	l, err := net.Listen("unix", o.ConsoleSocket)
	must(t, err)
	defer func() { _ = l.Close() }()
	status, err := Run(t.Context(), RunOptions{CreateOptions: o})
	if status != 0 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
	b.nothingLeft(t)
}

// A create that is stopped, here while a hook hangs, leaves nothing.
func TestCreateCancelled(t *testing.T) {
	b := newBundle(t, "exit", "0")
	started := filepath.Join(b.dir, "started")
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{
		{Path: filepath.Join(b.dir, "rootfs/bin/work"), Args: []string{"work", "hook", started, "x"}},
		{Path: filepath.Join(b.dir, "rootfs/bin/work"), Args: []string{"work", "wait"}},
	}}
	b.save(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stopped by the test")
	go func() {
		for {
			if _, err := os.Stat(started); err == nil {
				cancel(stop)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if _, err := Create(ctx, b.options(t, nil)); !errors.Is(err, stop) {
		t.Errorf("error %v", err)
	}
	b.nothingLeft(t)
}

// What a create left that was killed is undone by the next one of that id, and a
// create under way is not.
func TestCreateTakesOver(t *testing.T) {
	b := newBundle(t, "exit", "0")
	b.save(t)
	o := b.options(t, nil)
	dead, err := reserve(t.Context(), o.Root, o.ID)
	must(t, err)
	dead.Spec = Example()
	must(t, dead.save())
	if _, err := Create(t.Context(), o); !errors.Is(err, ErrExist) {
		t.Errorf("beside a create under way: %v", err)
	}
	dead.Close() // as the kernel does when it is killed
	c, err := Create(t.Context(), o)
	must(t, err)
	must(t, c.Delete(t.Context(), true, nil))
	b.nothingLeft(t)
}
