package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openPTY returns a pseudo-terminal of 40 by 100. What is read from its master is
// bounded by limit.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx") // (*os.File).Fd would make it block
	t.Cleanup(func() { _ = master.Close() })
	if err := master.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 100}); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	return master, slave
}

// With -it the workload has a terminal of the caller's size, Ctrl-C typed there
// is the workload's SIGINT, and the caller's terminal is put back.
func TestTerminal(t *testing.T) {
	each(t, func(t *testing.T, run []string) {
		master, slave := openPTY(t)
		before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		cmd := exec.CommandContext(ctx, bin, concat(run, []string{"-it", image, "/helper", "terminal"})...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		out := bufio.NewReader(master)
		line, err := out.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		said := line
		if i := strings.LastIndex(line, "\x1b[K"); i >= 0 {
			said = line[i+len("\x1b[K"):] // after our own progress
		}
		if strings.TrimSpace(said) != "terminal 40x100" {
			t.Fatalf("the workload said %q", line)
		}
		if _, err := master.WriteString("\x03"); err != nil {
			t.Fatal(err)
		}
		if got := waitStatus(t, cmd); got != 128+int(unix.SIGINT) {
			t.Errorf("status %d after Ctrl-C, want 130", got)
		}
		after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
		if err != nil || *after != *before {
			t.Errorf("the terminal was left as %+v, was %+v (%v)", after, before, err)
		}
	})
}
