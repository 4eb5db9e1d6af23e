package ocicli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/inside"
	"github.com/duplex-run/duplex/oci"
)

// TestMain makes the test binary the runtime, as command duplex-oci is, and the
// program of its containers.
func TestMain(m *testing.M) {
	inside.Main()
	if len(os.Args) > 1 && os.Args[1] == "oci" {
		os.Exit(Main(os.Args[2:]))
	}
	if filepath.Base(os.Args[0]) == "work" && len(os.Args) > 1 {
		os.Exit(work(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// work is what the containers and hooks of the tests execute.
func work(args []string) int {
	switch args[0] {
	case "exit":
		var code int
		_, _ = fmt.Sscan(args[1], &code)
		return code
	case "hang": // FIFO: says there that it does
		f, err := os.OpenFile(args[1], os.O_WRONLY, 0)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	_ = unix.Pause() // until it is killed
	return 99
}

// Someone whose command lines a test runs. An ordinary user has no name and owns
// nothing but its bundle.
type someone struct {
	name     string
	uid, gid int
}

var (
	root = someone{name: "root"}
	user = someone{name: "user", uid: 54321, gid: 54321}
)

// rig is a bundle, and what the runtime is started with for it.
type rig struct {
	who         someone
	dir, bundle string
	state       string // --root
	id          string
	program     string // the test binary, where all may execute it
	printed     string // the file that has a command's standard error
	spec        *specs.Spec
	left        []string // ids of containers that are deleted at the end
}

var rigs atomic.Int32

// newRig makes a bundle whose program ends with status 7. Its user owns it.
func newRig(t *testing.T, who someone) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("to be root and another user takes root; CI runs this as root")
	}
	dir, err := os.MkdirTemp("", "ocicli") // below /tmp itself, so that the user gets there
	must(t, err)
	r := &rig{who: who, dir: dir, bundle: filepath.Join(dir, "b"), state: filepath.Join(dir, "state"),
		id: fmt.Sprintf("bad-%d-%d", os.Getpid(), rigs.Add(1)), program: filepath.Join(dir, "work"), printed: filepath.Join(dir, "stderr")}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o755))
	must(t, os.MkdirAll(filepath.Join(r.bundle, "rootfs/bin"), 0o755))
	self, err := os.Executable()
	must(t, err)
	for _, place := range []string{r.program, filepath.Join(r.bundle, "rootfs/bin/work")} {
		if os.Link(self, place) != nil {
			data, err := os.ReadFile(self)
			must(t, err)
			must(t, os.WriteFile(place, data, 0o755))
		}
	}
	r.spec = oci.Example()
	if who != root {
		r.spec = oci.ExampleWithoutRoot(who.uid, who.gid)
	}
	r.spec.Process.Terminal, r.spec.Root.Readonly = false, false
	r.spec.Process.Args = []string{"/bin/work", "exit", "7"}
	for _, d := range []string{dir, r.bundle, filepath.Join(r.bundle, "rootfs"), filepath.Join(r.bundle, "rootfs/bin")} {
		must(t, os.Chown(d, who.uid, who.gid))
	}
	return r
}

// save writes config.json.
func (r *rig) save(t *testing.T) {
	t.Helper()
	data, err := json.Marshal(r.spec)
	must(t, err)
	r.config(t, data)
}

func (r *rig) config(t *testing.T, data []byte) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(r.bundle, "config.json"), data, 0o644))
}

// run runs `duplex oci ARGS...` as the rig's user to its end, and returns its
// status and what it printed on standard error.
func (r *rig) run(t *testing.T, args ...string) (int, string) {
	t.Helper()
	return r.end(t, r.start(t, args...))
}

func (r *rig) start(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(r.program, append([]string{"oci", "--root", r.state}, args...)...)
	cmd.Dir, cmd.Env = r.dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir, "XDG_RUNTIME_DIR=" + r.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(r.who.uid), Gid: uint32(r.who.gid)}}
	stderr, err := os.Create(r.printed) // no pipe: a container has it, too
	must(t, err)
	cmd.Stderr = stderr
	must(t, errors.Join(cmd.Start(), stderr.Close()))
	return cmd
}

// end waits for a command, for a minute at most.
func (r *rig) end(t *testing.T, cmd *exec.Cmd) (int, string) {
	t.Helper()
	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !late.Stop() {
		t.Fatalf("%v does not end", cmd.Args)
	}
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	text, err := os.ReadFile(r.printed)
	must(t, err)
	return cmd.ProcessState.ExitCode(), string(text)
}

// must runs a command line that has to work.
func (r *rig) must(t *testing.T, args ...string) {
	t.Helper()
	if status, text := r.run(t, args...); status != 0 || text != "" {
		t.Fatalf("%v: status %d, %q", args, status, text)
	}
}

// ended waits for the end of the container's first process.
func (r *rig) ended(t *testing.T) {
	t.Helper()
	c, err := oci.Open(r.state, r.id, false)
	must(t, err)
	fd, err := unix.PidfdOpen(c.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	must(t, err)
	defer func() { _ = unix.Close(fd) }()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 60_000); n != 1 || err != nil {
		t.Fatalf("it does not end: %v", err)
	}
}

// create creates the rig's container, which clean deletes.
func (r *rig) create(t *testing.T) {
	t.Helper()
	r.save(t)
	r.must(t, "create", "--bundle", r.bundle, r.id)
	r.left = append(r.left, r.id)
}

// clean deletes what was created, and looks for what is left: state, cgroups,
// mounts, processes.
func (r *rig) clean(t *testing.T) {
	t.Helper()
	for _, id := range r.left {
		if status, text := r.run(t, "delete", "--force", id); status != 0 {
			t.Errorf("delete: status %d, %q", status, text)
		}
	}
	entries, err := os.ReadDir(r.state)
	for _, e := range entries {
		if e.Name() != "full" { // what fills the disk of a test
			t.Errorf("left in the state directory: %s", e.Name())
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*", "/sys/fs/cgroup/*/*", "/sys/fs/cgroup/*/*/*"} {
		if left, _ := filepath.Glob(filepath.Join(dir, r.id+"*")); len(left) > 0 {
			t.Errorf("left cgroups: %v", left)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if strings.Contains(string(mounts), filepath.Join(r.bundle, "rootfs")) {
		t.Error("left mounts in the rootfs")
	}
	alone(t)
}

// alone waits until the last process that is left by a command, which became a
// child of this one (PR_SET_CHILD_SUBREAPER), has ended; one that does not end is
// an error.
func alone(t *testing.T) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := unix.Wait4(-1, nil, unix.WALL, nil); err != nil && !errors.Is(err, unix.EINTR) {
				return // no child
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("a process is left")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
