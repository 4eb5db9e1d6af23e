package fs

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

// mounted serves dir to this host's kernel through /dev/fuse, which speaks the
// guest's language, and returns the mount point.
func mounted(t *testing.T, o Options) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting FUSE takes root")
	}
	mnt := t.TempDir()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	opts := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", fd)
	if err := unix.Mount("duplex", mnt, "fuse", unix.MS_NODEV, opts); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "/dev/fuse")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = []string{bridgeEnv + "=" + o.Dir}
	if o.ReadOnly {
		cmd.Env = append(cmd.Env, bridgeEnv+"_RO=1")
	}
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	err = cmd.Start()
	_ = f.Close()
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return mnt
}

const bridgeEnv = "DUPLEX_TEST_SHARE"

// The server for the kernel is a process of its own: a process that waits for
// the kernel, which waits for the same process, may wait for ever.
func TestMain(m *testing.M) {
	dir := os.Getenv(bridgeEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	d, err := New(Options{Dir: dir, Tag: "test", ReadOnly: os.Getenv(bridgeEnv+"_RO") != ""})
	if err == nil {
		err = errors.Join(bridge(3, d.server), d.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// bridge hands the kernel's requests to s until it is unmounted.
func bridge(fd int, s *server) error {
	in, out := make([]byte, MaxIO+1<<17), make([]byte, MaxIO+1<<17)
	for {
		n, err := unix.Read(fd, in)
		switch {
		case errors.Is(err, unix.ENODEV):
			return nil
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return err
		}
		// Cut anywhere: messages have no fixed framing (§2.7.4).
		cut := min(n, 100)
		c := queue.Chain{Readable: [][]byte{in[:cut], in[cut:n]}, Writable: [][]byte{out[:7], out[7:]}}
		reply, err := s.serve(&c)
		if err != nil {
			return err
		}
		if reply == 0 {
			continue
		}
		// ENOENT: whoever asked was interrupted.
		if _, err := unix.Write(fd, out[:reply]); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("reply to opcode %d: %w", le.Uint32(in[4:]), err)
		}
	}
}

// atFlag is how a guest runs TestPosix: on the share it has mounted.
var atFlag = flag.String("at", "", "directory that TestPosix works in; empty means one mounted for it")

// go-fuse's suite for file systems, with this kernel as the client.
func TestPosix(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
		if name == "FcntlFlockLocksFile" {
			continue // wants locks to reach the host's file; the guest keeps its own
		}
		t.Run(name, func(t *testing.T) {
			if *atFlag == "" {
				posixtest.All[name](t, mounted(t, Options{Dir: t.TempDir()}))
				return
			}
			dir := filepath.Join(*atFlag, name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			posixtest.All[name](t, dir)
		})
	}
}

// A tree copied in by tar is the same on both sides, and read-only refuses.
func TestTree(t *testing.T) {
	dir := t.TempDir()
	mnt := mounted(t, Options{Dir: dir})
	script := `
cd "$1" && mkdir -p a/b/c && echo hello >a/file && ln -s ../file a/b/link && ln a/file a/b/hard &&
mkfifo a/fifo && chmod 4711 a/file && chown 12:34 a/file a/b && chown -h 5:6 a/b/link &&
touch -d @1234567890.5 a/file && cp -a a copy && mv copy moved && : >a/truncated && echo x >>a/truncated &&
dd if=/dev/zero of=big bs=1M count=5 2>/dev/null && truncate -s 3m big && seq 2000 | (cd a/b/c && xargs touch) &&
rm -r moved/b && umask 077 && mkdir private && echo s >private/secret && setpriv --reuid 7 --regid 8 --clear-groups true`
	if out, err := exec.Command("sh", "-c", script, "sh", mnt).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	list := func(dir string) string {
		cmd := exec.Command("sh", "-c", `find . -printf '%P %y %m %U %G %n %T@ %l %s\n' | sed '/ d /s/ [0-9]*$//' | sort; find . -type f | sort | xargs sha256sum`)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	if host, guest := list(dir), list(mnt); host != guest {
		t.Errorf("the guest sees\n%s\nthe host\n%s", guest, host)
	}
	ro := mounted(t, Options{Dir: dir, ReadOnly: true})
	if host, guest := list(dir), list(ro); host != guest {
		t.Errorf("read-only, the guest sees\n%s\nthe host\n%s", guest, host)
	}
	if err := os.WriteFile(filepath.Join(ro, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a read-only share: %v", err)
	}
	if err := os.Remove(filepath.Join(ro, "big")); !errors.Is(err, unix.EROFS) {
		t.Errorf("remove from a read-only share: %v", err)
	}
}
