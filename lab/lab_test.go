package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// One machine, everything that goes in and comes out.
func TestFilesAndStreams(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	small, large := filepath.Join(dir, "small"), filepath.Join(dir, "large")
	content := bytes.Repeat([]byte("large"), big/5)
	for _, err := range []error{
		os.MkdirAll(filepath.Join(tree, "sub"), 0o755),
		os.WriteFile(filepath.Join(tree, "sub/kept"), []byte("kept"), 0o600),
		os.WriteFile(filepath.Join(tree, "sub/changed"), []byte("before"), 0o600),
		os.WriteFile(small, []byte("small"), 0o600),
		os.WriteFile(large, content, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	in := make([]byte, 10<<20)
	chacha := rand.NewChaCha8([32]byte{})
	_, _ = chacha.Read(in)
	sum := sha256.New()
	var errs bytes.Buffer
	var cwd string
	exit, err := inLab(t, func(o *Options) { o.Interactive, cwd = true, o.Cwd },
		workload.Stdio{In: bytes.NewReader(in), Out: sum, Err: &errs}, "files", tree, small, large)
	if err != nil || exit != (workload.Exit{Code: 42}) || errs.String() != "to stderr" {
		t.Fatalf("%+v, %v, stderr %q", exit, err, &errs)
	}
	if want := sha256.Sum256(in); !bytes.Equal(sum.Sum(nil), want[:]) {
		t.Error("stdout is not what went to stdin")
	}
	copy(content[1<<20:], "changed")
	for _, want := range []struct {
		path, content string
		mode          os.FileMode
	}{
		{filepath.Join(cwd, "new"), "new", 0o640},
		{filepath.Join(cwd, "made/deep/.hidden"), "", 0o600},
		{filepath.Join(tree, "sub/changed"), "after", 0o600},
		{filepath.Join(tree, "sub/kept"), "kept", 0o600},
		{small, "renamed over", 0o755},
		{large, string(content), 0o600},
	} {
		got, err := os.ReadFile(want.path)
		if err != nil || string(got) != want.content {
			t.Errorf("%s: %.40q, %v", want.path, got, err)
			continue
		}
		if info, err := os.Stat(want.path); err != nil || info.Mode() != want.mode {
			t.Errorf("%s: mode %v, want %v (%v)", want.path, info.Mode(), want.mode, err)
		}
	}
	for _, not := range []string{filepath.Join(cwd, "link"), filepath.Join(cwd, "part"), "/var/elsewhere"} {
		if _, err := os.Lstat(not); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s came back (%v)", not, err)
		}
	}
}

// A signal is forwarded; the one that kills is the status.
func TestSignals(t *testing.T) {
	signals := make(chan workload.Signal, 2)
	r, w := io.Pipe()
	go func() {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			switch lines.Text() {
			case "ready":
				signals <- workload.Signal(unix.SIGUSR1)
			case "got user defined signal 1":
				signals <- workload.Signal(unix.SIGTERM)
			}
		}
	}()
	exit, err := inLab(t, nil, workload.Stdio{Out: w, Signals: signals}, "wait")
	if err != nil || exit.Status() != 128+int(unix.SIGTERM) {
		t.Errorf("%+v, %v", exit, err)
	}
}

// limited is a reader at the far end that has read enough.
type limited int

func (l *limited) Write(p []byte) (int, error) {
	if *l -= limited(len(p)); *l < 0 {
		return 0, unix.EPIPE
	}
	return len(p), nil
}

// A command whose output nobody reads ends as it would in a shell's pipeline.
func TestClosedOutput(t *testing.T) {
	out := limited(100_000)
	exit, err := inLab(t, nil, workload.Stdio{Out: &out}, "spew")
	if err != nil || exit.Status() != 128+int(unix.SIGPIPE) {
		t.Errorf("%+v, %v", exit, err)
	}
}

func TestTerminal(t *testing.T) {
	var out bytes.Buffer
	exit, err := inLab(t, func(o *Options) {
		o.TTY, o.Interactive, o.Size = true, true, workload.WinSize{Rows: 33, Cols: 111}
	}, workload.Stdio{In: strings.NewReader("typed\n"), Out: &out}, "terminal")
	if err != nil || exit.Code != 42 {
		t.Errorf("%+v, %v", exit, err)
	}
	for _, want := range []string{"33x111\r\n", "typed\r\n", "read \"typed\"\r\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %q", want, out.String())
		}
	}
}

func TestPanic(t *testing.T) {
	_, err := inLab(t, nil, workload.Stdio{}, "crash")
	var own *workload.Error
	if !errors.As(err, &own) || !strings.Contains(err.Error(), "Kernel panic - not syncing: sysrq triggered crash") {
		t.Errorf("got %v, want the kernel's panic line", err)
	}
}

func TestNotFound(t *testing.T) {
	exit, err := inLab(t, func(o *Options) { o.Argv = []string{"no-such-command"}; o.Deterministic = true }, workload.Stdio{}, "")
	if err != nil || exit.Status() != workload.StatusNotFound || !strings.Contains(exit.Message, "no-such-command") {
		t.Errorf("%+v, %v", exit, err)
	}
}

func TestTimeout(t *testing.T) {
	start := time.Now()
	exit, err := inLab(t, func(o *Options) { o.Timeout = 2 * time.Second }, workload.Stdio{}, "wait")
	if err != nil || exit.Status() != workload.StatusTimeout {
		t.Errorf("%+v, %v", exit, err)
	}
	if took := time.Since(start); took < 2*time.Second {
		t.Errorf("ended after %v", took)
	}
}

func TestSlowBoot(t *testing.T) {
	_, err := inLab(t, func(o *Options) { o.BootTimeout = 50 * time.Millisecond }, workload.Stdio{}, "wait")
	if err == nil || !strings.Contains(err.Error(), "did not come up within 50ms") {
		t.Errorf("got %v", err)
	}
}

func TestCancel(t *testing.T) {
	boots(t)
	o, err := options("wait")
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = r.Read(make([]byte, 1)) // it runs
		cancel()
	}()
	if exit, err := Run(ctx, o, workload.Stdio{Out: w}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", exit, err)
	}
	if left := children(os.Getpid()); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
}

// kill -9 of duplex at any moment takes the machine with it.
func TestKilled(t *testing.T) {
	boots(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range 10 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), helperEnv+"=run")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(random.IntN(1500))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		var machines []string
		for len(machines) == 0 && unix.Kill(cmd.Process.Pid, 0) == nil && !zombie(cmd.Process.Pid) {
			machines = children(cmd.Process.Pid)
		}
		_ = cmd.Wait()
		kill.Stop()
		for _, m := range machines {
			pid, err := strconv.Atoi(m)
			if err != nil {
				t.Fatal(err)
			}
			gone := time.Now().Add(20 * time.Second)
			for unix.Kill(pid, 0) == nil && !zombie(pid) {
				if time.Now().After(gone) {
					t.Fatalf("QEMU %d outlives the duplex that started it", pid)
				}
			}
		}
	}
}

// zombie says whether pid has ended and waits to be reaped.
func zombie(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}

func TestValidate(t *testing.T) {
	ok := Options{Argv: []string{"x"}, Cwd: "/"}
	if err := ok.validate(); err != nil || ok.Memory != defaultMemory || ok.CPUs != defaultCPUs {
		t.Errorf("%+v, %v", ok, err)
	}
	for name, o := range map[string]Options{
		"no command":       {Cwd: "/"},
		"relative cwd":     {Argv: []string{"x"}, Cwd: "y"},
		"negative memory":  {Argv: []string{"x"}, Cwd: "/", Memory: -1},
		"little memory":    {Argv: []string{"x"}, Cwd: "/", Memory: minMemory - 1},
		"too many CPUs":    {Argv: []string{"x"}, Cwd: "/", CPUs: 65},
		"negative timeout": {Argv: []string{"x"}, Cwd: "/", Timeout: -1},
	} {
		if err := o.validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestNoQEMU(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := start(config{})
	var own *workload.Error
	if !errors.As(err, &own) || !strings.Contains(own.Remedy, "qemu-system-x86") {
		t.Errorf("got %v", err)
	}
}
