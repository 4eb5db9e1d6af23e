package oci

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/cgroup"
	"github.com/duplex-run/duplex/internal/workload"
)

// refused creates b's container, which has to fail with one line that has want in
// it, and to leave nothing.
func (b *bundle) refused(t *testing.T, o CreateOptions, want string) {
	t.Helper()
	c, err := Create(t.Context(), o)
	if err == nil {
		must(t, c.Delete(t.Context(), true, nil))
		t.Fatalf("created, want an error with %q", want)
	}
	if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q, want one line with %q", err, want)
	}
}

func mount(t *testing.T, source, dir, kind string, flags uintptr, data string) {
	t.Helper()
	must(t, unix.Mount(source, dir, kind, flags, data))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

// A state directory on a full disk.
func TestFullDisk(t *testing.T) {
	b := newBundle(t, "exit", "0")
	b.save(t)
	must(t, os.Mkdir(b.root, 0o755))
	mount(t, "tmpfs", b.root, "tmpfs", 0, "size=64k")
	err := os.WriteFile(filepath.Join(b.root, "full"), make([]byte, 1<<20), 0o600)
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	b.refused(t, b.options(t, nil), "no space left on device")
	must(t, os.Remove(filepath.Join(b.root, "full")))
	b.nothingLeft(t)
}

// A bundle on a read-only disk runs when its rootfs has the directories to mount
// on, and says what it could not make when not.
func TestReadOnlyDisk(t *testing.T) {
	b := newBundle(t, "exit", "7")
	b.save(t)
	readOnly := func() {
		must(t, unix.Mount(b.dir, b.dir, "", unix.MS_BIND, ""))
		must(t, unix.Mount("", b.dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	}
	readOnly()
	b.refused(t, b.options(t, nil), "read-only file system")
	must(t, unix.Unmount(b.dir, unix.MNT_DETACH))
	for _, dir := range []string{"proc", "dev", "sys"} {
		must(t, os.Mkdir(filepath.Join(b.dir, "rootfs", dir), 0o755))
	}
	readOnly()
	status, err := Run(t.Context(), RunOptions{CreateOptions: b.options(t, nil)})
	if status != 7 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
	must(t, unix.Unmount(b.dir, unix.MNT_DETACH))
	b.nothingLeft(t)
}

// Files of the caller's that cannot be written or reached.
func TestFilesThatAreNotThere(t *testing.T) {
	b := newBundle(t, "exit", "0")
	b.save(t)
	o := b.options(t, nil)
	o.PidFile = filepath.Join(b.dir, "nothing", "pid")
	b.refused(t, o, "write the pid file")
	b.spec.Process.Terminal = true
	b.save(t)
	o = b.options(t, nil)
	o.ConsoleSocket = filepath.Join(b.dir, "nothing.sock")
	b.refused(t, o, "console socket")
	b.nothingLeft(t)
}

// The program is removed between create and start.
func TestStartWithoutProgram(t *testing.T) {
	b := newBundle(t, "exit", "0")
	c := b.create(t)
	must(t, os.RemoveAll(filepath.Join(b.dir, "rootfs", "bin")))
	err := c.Start(t.Context())
	if we := (*workload.Error)(nil); !errors.As(err, &we) || we.Status != workload.StatusNotFound {
		t.Errorf("error %v, want status 127", err)
	}
}

// Where cgroups cannot be made, a bundle with limits is refused and one without
// runs in the caller's group. The thread gets a view of its own, in which the
// hierarchies are read-only.
func TestNoDelegation(t *testing.T) {
	b := newBundle(t, "exit", "7")
	layout, err := cgroup.Find()
	must(t, err)
	mounts := map[string]bool{}
	for _, h := range layout.By {
		mounts[h.Mount] = true
	}
	if layout.Unified != nil {
		mounts[layout.Unified.Mount] = true
	}
	runtime.LockOSThread() // and not unlocked: the thread ends with the test
	must(t, unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS))
	must(t, unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""))
	for m := range mounts {
		must(t, unix.Mount(m, m, "", unix.MS_BIND, ""))
		must(t, unix.Mount("", m, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	}
	b.spec.Linux.Resources.Devices = nil
	b.save(t)
	status, err := Run(t.Context(), RunOptions{CreateOptions: b.options(t, nil)})
	if status != 7 || err != nil {
		t.Errorf("without limits: status %d, %v", status, err)
	}
	limit := int64(64 << 20)
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	b.save(t)
	b.refused(t, b.options(t, nil), "make the cgroup")
	b.nothingLeft(t)
}
