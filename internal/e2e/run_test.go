package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// One table of exit statuses, the same for both isolations.
func TestExitStatuses(t *testing.T) {
	tests := []struct {
		name   string
		flags  []string
		cmd    []string
		want   int
		stderr string
	}{
		{"zero", nil, []string{"/helper", "exit", "0"}, 0, ""},
		{"one", nil, []string{"/helper", "exit", "1"}, 1, ""},
		{"42", nil, []string{"/helper", "exit", "42"}, 42, ""},
		{"255", nil, []string{"/helper", "exit", "255"}, 255, ""},
		{"TERM", nil, []string{"/helper", "kill", "15"}, 143, ""},
		{"KILL", nil, []string{"/helper", "kill", "9"}, 137, ""},
		{"SEGV", nil, []string{"/helper", "kill", "11"}, 139, ""},
		{"missing path", nil, []string{"/no/such"}, 127, "/no/such"},
		{"missing in PATH", nil, []string{"nosuch"}, 127, "nosuch"},
		{"not executable", nil, []string{"/noexec"}, 126, "permission denied"},
		{"directory", nil, []string{"/etc"}, 126, "/etc"},
		{"no known format", nil, []string{"/garbage"}, 126, "exec format error"},
		{"out of memory", []string{"-m", "128m"}, []string{"/helper", "eat"}, 137, "killed for want of memory"},
		{"time-out", []string{"--timeout=2s"}, []string{"/helper", "sleep"}, 124, "timed out"},
	}
	each(t, func(t *testing.T, run []string) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				r := duplex(t, nil, concat(run, tt.flags, []string{image}, tt.cmd)...)
				if r.status != tt.want {
					t.Errorf("status %d, want %d\n%s", r.status, tt.want, r.stderr)
				}
				if tt.stderr == "" && r.stderr != "" || !strings.Contains(r.stderr, tt.stderr) {
					t.Errorf("stderr %q, want %q", r.stderr, tt.stderr)
				}
			})
		}
	})
}

func TestStreamsAreSeparateAndWhole(t *testing.T) {
	data := make([]byte, 10<<20)
	seed := rand.NewChaCha8([32]byte{1})
	_, _ = seed.Read(data)
	each(t, func(t *testing.T, run []string) {
		r := duplex(t, nil, concat(run, []string{image, "/helper", "both"})...)
		if r.stdout != "to stdout" || r.stderr != "to stderr" {
			t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
		}
		r = duplex(t, bytes.NewReader(data), concat(run, []string{"-i", image, "/helper", "cat"})...)
		if r.status != 0 || !bytes.Equal([]byte(r.stdout), data) {
			t.Errorf("10 MiB through: status %d, %d bytes came back, %s", r.status, len(r.stdout), r.stderr)
		}
		r = duplex(t, bytes.NewReader(data), concat(run, []string{image, "/helper", "cat"})...)
		if r.status != 0 || r.stdout != "" {
			t.Errorf("without -i stdin is empty: status %d, %d bytes", r.status, len(r.stdout))
		}
	})
}

func TestFlagsMeanTheSame(t *testing.T) {
	type about struct {
		Hostname, Cwd string
		UID, GID      int
		Groups        []int
		Env, Args     []string
		TTY           bool
	}
	each(t, func(t *testing.T, run []string) {
		r := duplex(t, nil, concat(run, []string{
			"-h", "box", "-w", "/new/dir", "-u", "app", "-e", "A=1 2", "-e", "PATH=/x", "-m", "256m", "--pids-limit=50",
			image, "/helper", "about", "one", "", "t h r e e", "-x"})...)
		var got about
		if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
			t.Fatalf("%v: status %d, stdout %q, stderr %q", err, r.status, r.stdout, r.stderr)
		}
		if got.Hostname != "box" || got.Cwd != "/new/dir" || got.UID != 1000 || got.GID != 1000 || got.TTY {
			t.Errorf("%+v", got)
		}
		if !slices.Contains(got.Groups, 2000) {
			t.Errorf("groups %v, want 2000 among them", got.Groups)
		}
		if !slices.Equal(got.Args, []string{"one", "", "t h r e e", "-x"}) {
			t.Errorf("args %q", got.Args)
		}
		want := []string{"PATH=/x", "HOSTNAME=box", "HOME=/home/app", "A=1 2"}
		if !slices.Equal(got.Env, want) {
			t.Errorf("env %q, want %q", got.Env, want)
		}
	})
}

func TestRootIsWritableUnlessReadOnly(t *testing.T) {
	each(t, func(t *testing.T, run []string) {
		if r := duplex(t, nil, concat(run, []string{image, "/helper", "touch", "/etc/new"})...); r.status != 0 {
			t.Errorf("write to the root: status %d, %s", r.status, r.stderr)
		}
		r := duplex(t, nil, concat(run, []string{"--read-only", image, "/helper", "touch", "/etc/new"})...)
		if r.status != 99 || !strings.Contains(r.stderr, "read-only file system") {
			t.Errorf("write to a read-only root: status %d, %s", r.status, r.stderr)
		}
	})
}

func TestAGigabyteOfOutput(t *testing.T) {
	size := 1 << 30
	if inLab() {
		size = 64 << 20 // emulation moves a few megabytes a second
	}
	each(t, func(t *testing.T, run []string) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*limit)
		defer cancel()
		cmd := exec.CommandContext(ctx, bin, concat(run, []string{image, "/helper", "spam", strconv.Itoa(size)})...)
		h, n := sha256.New(), counter(0)
		cmd.Stdout = io.MultiWriter(h, &n)
		if err := cmd.Run(); err != nil {
			t.Fatalf("after %d bytes: %v", n, err)
		}
		want := sha256.New()
		block := []byte(strings.Repeat("0123456789abcdef", 4096))
		for range size / len(block) {
			want.Write(block)
		}
		if int(n) != size || !bytes.Equal(h.Sum(nil), want.Sum(nil)) {
			t.Errorf("%d bytes came out, want %d with the same hash", n, size)
		}
	})
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// A signal to duplex reaches the workload once it runs.
func TestSignalsAreForwarded(t *testing.T) {
	each(t, func(t *testing.T, run []string) {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1} {
			p := startSleep(t, run)
			if err := p.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if got, want := waitStatus(t, p), 128+int(sig); got != want {
				t.Errorf("%v: status %d, want %d", sig, got, want)
			}
		}
	})
}

// startSleep starts a workload and returns when it has printed its first line.
func startSleep(t *testing.T, run []string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	p := exec.CommandContext(ctx, bin, concat(run, []string{image, "/helper", "sleep"}, args)...)
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "sleeping\n" {
		t.Fatalf("workload said %q: %v", line, err)
	}
	return p
}

// waitStatus waits for p for at most ten seconds.
func waitStatus(t *testing.T, p *exec.Cmd) int {
	t.Helper()
	hung := time.AfterFunc(10*time.Second, func() { _ = p.Process.Kill() })
	err := p.Wait()
	if !hung.Stop() {
		t.Fatal("duplex did not end within 10 s of the signal")
	}
	return status(t, err)
}

func TestBadInputsAreNamed(t *testing.T) {
	each(t, func(t *testing.T, run []string) {
		tests := []struct {
			args   []string
			stderr string
		}{
			{[]string{"rootfs:/nonexistent", "x"}, "/nonexistent"},
			{[]string{"--memory=1m", image, "/helper", "exit", "0"}, "minimum"},
			{[]string{"--gpus=all", image, "x"}, "--gpus is not supported"},
			{[]string{"-v", "/nonexistent:/b", image, "x"}, "volume /nonexistent"},
			{[]string{"--user=nobody-here", image, "/helper", "exit", "0"}, "nobody-here"},
			{[]string{"-i", "-t", image, "/helper", "exit", "0"}, "not a TTY"},
			{[]string{}, "no image"},
		}
		for _, tt := range tests {
			r := duplex(t, nil, concat(run, tt.args)...)
			if r.status != 125 || !strings.HasPrefix(r.stderr, "duplex: ") || !strings.Contains(r.stderr, tt.stderr) {
				t.Errorf("%q: status %d, stderr %q, want 125 and %q", tt.args, r.status, r.stderr, tt.stderr)
			}
			if strings.Contains(r.stderr, "goroutine") || strings.Count(r.stderr, "\n") > 2 {
				t.Errorf("%q: an error is two lines at most: %q", tt.args, r.stderr)
			}
		}
	})
}
