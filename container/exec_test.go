package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// running starts a container whose workload sleeps, and returns what acts on it
// and what ends it.
func running(t *testing.T, spec workload.Spec) (workload.Controller, func()) {
	t.Helper()
	signals, ready := make(chan workload.Signal, 1), make(chan workload.Controller, 1)
	done := make(chan error, 1)
	go func() {
		_, err := Runner{}.Run(t.Context(), spec, workload.Stdio{Signals: signals, Running: func(c workload.Controller) { ready <- c }}, nil)
		done <- err
	}()
	select {
	case c := <-ready:
		return c, sync.OnceFunc(func() {
			signals <- workload.Signal(unix.SIGKILL)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	case err := <-done:
		t.Fatal(err)
		return nil, nil
	}
}

func TestExecStatuses(t *testing.T) {
	c, end := running(t, newSpec(newTree(t), "sleep"))
	defer end()
	for argv, want := range map[string]struct {
		status    int
		in        string
		out, errs string
	}{
		"work exit 42":   {status: 42},
		"work suicide 9": {status: 137},
		"nosuch":         {status: 127},
		"/bin":           {status: 126},
		"work echo a":    {out: "a\n"},
		"work cat":       {in: strings.Repeat("in", 100_000), out: strings.Repeat("in", 100_000)},
		"work cat /no":   {status: 98, errs: "work: open /no: no such file or directory\n"},
		"work orphan":    {},
	} {
		t.Run(argv, func(t *testing.T) {

			spec := newSpec("", strings.Fields(argv)...)
			spec.Argv = strings.Fields(argv)
			spec.Interactive = want.in != ""
			var out, errs bytes.Buffer
			exit, err := c.Exec(t.Context(), spec, workload.Stdio{In: strings.NewReader(want.in), Out: &out, Err: &errs})
			if err != nil || exit.Status() != want.status || errs.String() != want.errs {
				t.Errorf("%v, %v, %.40q, %q", exit, err, &out, &errs)
			}
			if argv != "work orphan" && out.String() != want.out {
				t.Errorf("%.40q, want %.40q", &out, want.out)
			}
		})
	}
}

// A further command sees, and may do, what the workload does.
func TestExecIsConfined(t *testing.T) {
	tree := newTree(t)
	main := runIt(t, newSpec(tree, "view"))
	c, end := running(t, newSpec(tree, "sleep"))
	defer end()
	var out bytes.Buffer
	if exit, err := c.Exec(t.Context(), newSpec("", "view"), workload.Stdio{Out: &out}); err != nil || exit.Status() != 0 {
		t.Fatalf("%v, %v", exit, err)
	}
	var want, got view
	must(t, json.Unmarshal([]byte(main.out), &want))
	must(t, json.Unmarshal(out.Bytes(), &got))
	for _, k := range []string{"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "SigIgn", "SigBlk", "Umask"} {
		if got.Status[k] != want.Status[k] {
			t.Errorf("%s: %q, want %q", k, got.Status[k], want.Status[k])
		}
	}
	if !slices.Equal(got.Mounts, want.Mounts) || got.Init != want.Init || len(got.FDs) != len(want.FDs) || got.Cwd != want.Cwd {
		t.Errorf("sees %+v, want %+v", got, want)
	}
	if got.Cgroup != want.Cgroup {
		t.Errorf("cgroups %q, want %q", got.Cgroup, want.Cgroup)
	}
	out.Reset()
	tried := runIt(t, newSpec(tree, "try"))
	if exit, err := c.Exec(t.Context(), newSpec("", "try"), workload.Stdio{Out: &out}); err != nil || exit.Status() != 0 || unlocked(out.String()) != unlocked(tried.out) {
		t.Errorf("%v, %v: tried\n%s\nwant\n%s", exit, err, &out, tried.out)
	}
}

// unlocked is what "try" would print without Landlock, which further commands are
// not under: where both deny making a node, it answers first.
func unlocked(text string) string {
	return regexp.MustCompile(`(?m)^(mknod .*: )permission denied$`).ReplaceAllString(text, "${1}operation not permitted")
}

// A signal arrives, a terminal changes its size, a caller that goes takes its
// command along, and so does the workload's end.
func TestExecLives(t *testing.T) {
	c, end := running(t, newSpec(newTree(t), "sleep"))
	signals, sizes := make(chan workload.Signal, 1), make(chan workload.WinSize, 1)
	out := newWaitFor("ready")
	go func() { <-out.ready; signals <- workload.Signal(unix.SIGINT) }()
	if exit, err := c.Exec(t.Context(), newSpec("", "trap"), workload.Stdio{Out: out, Signals: signals}); err != nil || exit.Status() != 7 {
		t.Errorf("signal: %v, %v, %q", exit, err, out)
	}
	spec := newSpec("", "tty")
	spec.TTY, spec.Interactive, spec.Size = true, true, workload.WinSize{Rows: 3, Cols: 4}
	out = newWaitFor("size 3 4")
	go func() { <-out.ready; sizes <- workload.WinSize{Rows: 5, Cols: 6} }()
	if exit, err := c.Exec(t.Context(), spec, workload.Stdio{In: strings.NewReader("x\n"), Out: out, Resize: sizes}); err != nil || exit.Status() != 98 {
		t.Errorf("tty: %v, %v, %q", exit, err, out) // /dev/console is of a workload with a terminal
	}
	// Of processor time there may be less than a tick of the clock that counts it.
	if s, err := c.Stats(t.Context()); err != nil || s.CPUNs < 0 || s.Pids < 1 {
		t.Errorf("%+v, %v", s, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	out = newWaitFor("sleeping")
	go func() { <-out.ready; cancel() }()
	if exit, err := c.Exec(ctx, newSpec("", "sleep"), workload.Stdio{Out: out}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, %v", exit, err)
	}
	var all sync.WaitGroup
	out = newWaitFor("sleeping")
	all.Go(func() {
		if exit, err := c.Exec(t.Context(), newSpec("", "sleep"), workload.Stdio{Out: out}); err != nil || exit.Status() != 137 {
			t.Errorf("ended with the workload: %v, %v", exit, err)
		}
	})
	<-out.ready
	end()
	all.Wait()
	if exit, err := c.Exec(t.Context(), newSpec("", "sleep"), workload.Stdio{}); !errors.Is(err, workload.ErrEnded) && exit.Signal != 9 {
		t.Errorf("after the end: %v, %v", exit, err)
	}
}
