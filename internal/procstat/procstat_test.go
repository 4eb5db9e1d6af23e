package procstat

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	line := "7 (a) b (c) S 1 7 7 0 -1 4194560 100 200 3 4 10 20 30 40 20 0 5 0 99 1000000 25 18446744073709551615"
	got, err := parse([]byte(line))
	want := Usage{Parent: 1, CPUNs: 300e6, Reaped: 700e6, Threads: 5, Resident: 25 * int64(os.Getpagesize())}
	if err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "7 (a) S 1 2", strings.Replace(line, " 10 20 ", " x 20 ", 1)} {
		if got, err := parse([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestParseNetwork(t *testing.T) {
	const head = "Inter-|   Receive  |  Transmit\n face |bytes packets\n"
	in, out, err := parseNetwork(strings.NewReader(head + "    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n  eth0:1000 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0\n  eth1: 1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n"))
	if in != 1001 || out != 202 || err != nil {
		t.Errorf("%d, %d, %v", in, out, err)
	}
	if _, _, err := parseNetwork(strings.NewReader("eth0: x 1 0 0 0 0 0 0 200\n")); err == nil {
		t.Error("accepted a count that is none")
	}
}

func TestStorage(t *testing.T) {
	const text = "rchar: 9\nwchar: 9\nread_bytes: 4096\nwrite_bytes: 12\ncancelled_write_bytes: 5\n"
	if read, written, err := parseStorage([]byte(text)); read != 4096 || written != 12 || err != nil {
		t.Errorf("%d, %d, %v", read, written, err)
	}
	for _, bad := range []string{"", "read_bytes: 1\n", strings.Replace(text, "4096", "x", 1)} {
		if _, _, err := parseStorage([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if _, _, err := Storage(os.Getpid()); err != nil {
		t.Error(err)
	}
}

// At least this process's threads, and a child's more while there is one.
func TestThreads(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	if own, err := Of(os.Getpid()); err != nil || Threads() < own.Threads+1 {
		t.Errorf("%d threads in all, %d of this process and a child, %v", Threads(), own.Threads, err)
	}
}

// This process has a child that has one.
func TestTree(t *testing.T) {
	cmd := exec.Command("sh", "-c", "cat & echo $!; wait")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	buf := make([]byte, 16)
	if _, err := out.Read(buf); err != nil {
		t.Fatal(err)
	}
	if got := Tree(os.Getpid()); !slices.Contains(got, os.Getpid()) || !slices.Contains(got, cmd.Process.Pid) || len(got) < 3 {
		t.Errorf("%v, with %d in it", got, cmd.Process.Pid)
	}
	if u, err := Of(os.Getpid()); err != nil || u.Threads < 1 || u.Resident < 1<<20 {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := Of(1 << 30); !os.IsNotExist(err) {
		t.Errorf("no process: %v", err)
	}
}
