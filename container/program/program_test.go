package program

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/sealed"
)

// TestMain makes the test binary a program that exits with 42, or copies its
// standard input.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != "work" {
		os.Exit(m.Run())
	}
	if os.Args[1] == "exit" {
		os.Exit(42)
	}
	_, _ = io.Copy(os.Stdout, os.Stdin)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The program that runs inside can be executed and not be changed.
func TestSealed(t *testing.T) {
	want, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	f, err := sealed.Program("test", want)
	must(t, err)
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("write: %v, want EPERM", err)
	}
	if err := f.Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncate: %v, want EPERM", err)
	}
	got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("the copy differs")
	}
	cmd := exec.Command("/proc/self/fd/3", "exit")
	cmd.Args[0], cmd.ExtraFiles = "work", []*os.File{f}
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 42 {
		t.Errorf("run: %v, want exit status 42", err)
	}
}

// Nor can the file that is executed from a read-only mount, with all rights there
// are, by its descriptor or through the process that runs it.
func TestReadOnlyProgram(t *testing.T) {
	file := filepath.Join(t.TempDir(), "program")
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(file, self, 0o755))
	f, err := readOnly(file)
	if os.Geteuid() != 0 {
		if !errors.Is(err, unix.EPERM) { // then the program is copied
			t.Errorf("as a user: %v, want EPERM", err)
		}
		return
	}
	must(t, err)
	defer f.Close()
	cmd := exec.Command(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), "cat") // closed by execve
	cmd.Args[0] = "work"
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	must(t, f.Close())
	exe := fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid)
	if err := unix.Access(exe, unix.W_OK); !errors.Is(err, unix.EROFS) {
		t.Errorf("access: %v, want EROFS", err)
	}
	if err := unix.Chmod(exe, 0o777); !errors.Is(err, unix.EROFS) {
		t.Errorf("chmod: %v, want EROFS", err)
	}
	fd, err := unix.Open(exe, unix.O_PATH|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
	if !errors.Is(err, unix.EINVAL) {
		t.Errorf("mount_setattr: %v, want EINVAL", err)
	}
	if tree, err := unix.OpenTree(fd, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE); !errors.Is(err, unix.EINVAL) {
		t.Errorf("open_tree: %d, %v, want EINVAL", tree, err)
	}
	must(t, in.Close())
	must(t, cmd.Wait())
	if err := unix.Access(file, unix.W_OK); err != nil {
		t.Errorf("the file itself: %v", err)
	}
}
