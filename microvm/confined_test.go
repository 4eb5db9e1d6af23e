package microvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/microvm/program"
)

// startTiny boots a guest that runs until the test ends, and returns the
// monitor's process id once the guest runs.
func startTiny(t *testing.T) int {
	t.Helper()
	h := tiny(t, say)
	serial := newWatched()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, _, err := Boot(ctx, h, BootOptions{Serial: serial})
		done <- err
	}()
	t.Cleanup(func() { cancel(); <-done })
	select {
	case <-serial.seen("!"):
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	return monitorOf(t, os.Getpid())
}

// monitorOf finds the monitor among the children of a process.
func monitorOf(t *testing.T, parent int) int {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range list {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		if f := strings.Fields(rest); len(f) < 2 || f[1] != strconv.Itoa(parent) {
			continue
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err == nil && strings.HasPrefix(string(line), monitorName) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("process %d has no monitor", parent)
	return 0
}

// What a monitor can see and do, as the kernel says it from outside: of the program
// that duplex carries, and of this one, which the attacks are in.
func TestMonitorConfined(t *testing.T) {
	for name, open := range map[string]func() (*os.File, error){"carried": program.Open, "itself": nil} {
		t.Run(name, func(t *testing.T) {
			if Program = open; Program != nil {
				t.Cleanup(func() { Program = nil })
			}
			pid := startTiny(t)
			checkProgram(t, pid, open)
			checkConfined(t, pid)
		})
	}
}

// checkProgram says whether a process is of the program that open opens, or of this
// one.
func checkProgram(t *testing.T, pid int, open func() (*os.File, error)) {
	t.Helper()
	if open == nil {
		open = openSelf
	}
	f, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, err1 := f.Stat()
	got, err2 := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err := errors.Join(err1, err2); err != nil {
		if os.Getuid() != 0 && errors.Is(err, os.ErrPermission) {
			return // not ours to see
		}
		t.Fatal(err)
	}
	if !os.SameFile(want, got) {
		t.Errorf("the monitor's program is not %s", f.Name())
	}
}

func checkConfined(t *testing.T, pid int) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", pid)
	vcpus := 0
	tasks, err := filepath.Glob(proc + "task/*/status")
	if err != nil || len(tasks) < 3 {
		t.Fatalf("%q, %v", tasks, err)
	}
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		status := map[string]string{}
		for line := range strings.Lines(string(b)) {
			k, v, _ := strings.Cut(line, ":")
			status[k] = strings.TrimSpace(v)
		}
		for k, want := range map[string]string{"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2"} {
			if status[k] != want {
				t.Errorf("%s: %s %s, want %s", path, k, status[k], want)
			}
		}
		// KVM has a thread of the kernel's own in the process, with the filters of
		// whoever ran a vCPU first.
		if status["Seccomp_filters"] == "2" && !strings.HasPrefix(status["Name"], "kvm-") {
			vcpus++
		}
	}
	if vcpus != 1 {
		t.Errorf("%d threads with a vCPU's filter", vcpus)
	}
	if os.Getuid() != 0 {
		return // the rest takes privilege over the monitor
	}
	if list, err := os.ReadDir(proc + "root"); err != nil || len(list) != 0 {
		t.Errorf("its root holds %v, %v", list, err)
	}
	for _, ns := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		ours, err1 := os.Readlink("/proc/self/ns/" + ns)
		its, err2 := os.Readlink(proc + "ns/" + ns)
		if err1 != nil || err2 != nil || ours == its {
			t.Errorf("%s namespace: %s and %s; %v", ns, ours, its, errors.Join(err1, err2))
		}
	}
	links, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		to, err := os.Readlink(proc + "fd/" + l.Name())
		if err == nil && strings.HasPrefix(to, "/") && to != "/dev/null" && !strings.HasSuffix(to, "/smaps_rollup") {
			t.Errorf("descriptor %s is %s", l.Name(), to)
		}
	}
}
