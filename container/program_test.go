package container

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// The program that runs inside can be executed and not be changed.
func TestSealed(t *testing.T) {
	self, err := os.Open("/proc/self/exe")
	must(t, err)
	defer self.Close()
	f, err := sealed("test", self)
	must(t, err)
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("write: %v, want EPERM", err)
	}
	if err := f.Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncate: %v, want EPERM", err)
	}
	want, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("the copy differs")
	}
	cmd := exec.Command("/proc/self/fd/3", "exit", "42")
	cmd.Args[0], cmd.ExtraFiles = "work", []*os.File{f}
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 42 {
		t.Errorf("run: %v, want exit status 42", err)
	}
}
