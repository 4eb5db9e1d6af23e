package script

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newScript(t *testing.T) *Script {
	t.Helper()
	s, err := New()
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// start has a process carry s out, with s as descriptor 3 and more behind it.
func start(t *testing.T, s *Script, out io.Writer, more ...*os.File) *exec.Cmd {
	t.Helper()
	p, err := Program(3)
	must(t, err)
	defer p.Close()
	cmd := exec.Command("/proc/self/fd/" + strconv.Itoa(int(p.Fd())))
	cmd.ExtraFiles, cmd.Stdout = append([]*os.File{s.File()}, more...), out
	must(t, cmd.Start())
	return cmd
}

func status(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// exitWith ends the process.
func (s *Script) exitWith(n int) { s.Call(unix.SYS_EXIT_GROUP, Val(n)) }

func (s *Script) say(text string) {
	s.Call(unix.SYS_WRITE, Val(1), Val(s.String(text)), Val(len(text)))
}

// Results are arguments of later calls, and can be read from outside.
func TestResults(t *testing.T) {
	s := newScript(t)
	fd, pid := s.Words(0), s.Words(0)
	s.Add(Call{Number: unix.SYS_GETPID, Result: pid})
	s.Add(Call{Number: unix.SYS_DUP, Args: []Arg{Val(1)}, Result: fd})
	text := "by the copy\n"
	s.Call(unix.SYS_WRITE, Of(fd), Val(s.String(text)), Val(len(text)))
	s.exitWith(7)
	must(t, s.Flush())
	var out strings.Builder
	cmd := start(t, s, &out)
	if got := status(cmd.Wait()); got != 7 || out.String() != text {
		t.Errorf("status %d, output %q", got, &out)
	}
	if got, err := s.Word(pid); err != nil || got != uint64(cmd.Process.Pid) {
		t.Errorf("getpid: %d, %v; want %d", got, err, cmd.Process.Pid)
	}
}

// Where errors lead.
func TestErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		call   Call
		status int
		out    string
		step   string
		errno  unix.Errno
	}{
		"none":                {Call{Number: unix.SYS_GETPID}, 0, "on ", "after", 0},
		"one":                 {Call{Number: unix.SYS_CLOSE, Args: []Arg{Val(99)}}, 125, "", "the step", unix.EBADF},
		"ignored":             {Call{Number: unix.SYS_CLOSE, Args: []Arg{Val(99)}, Ignore: true}, 0, "on ", "after", 0},
		"tolerated":           {Call{Number: unix.SYS_CLOSE, Args: []Arg{Val(99)}, Tolerate: unix.EBADF}, 0, "on ", "after", 0},
		"tolerated, and away": {Call{Number: unix.SYS_CLOSE, Args: []Arg{Val(99)}, Tolerate: unix.EBADF, Then: "away"}, 0, "away", "after", 0},
		"another":             {Call{Number: unix.SYS_CLOSE, Args: []Arg{Val(99)}, Tolerate: unix.EPERM}, 125, "", "the step", unix.EBADF},
		"caught":              {Call{Number: unix.SYS_CLOSE, Args: []Arg{Val(99)}, Fail: "away"}, 0, "away", "the step", unix.EBADF},
		"not there":           {Call{Number: 9999}, 125, "", "the step", unix.ENOSYS},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			s.Step("the step")
			s.Add(tc.call)
			s.Step("after")
			s.say("on ")
			s.exitWith(0)
			s.Label("away")
			s.say("away")
			s.exitWith(0)
			must(t, s.Flush())
			var out strings.Builder
			got := status(start(t, s, &out).Wait())
			step, errno := s.Failure()
			if got != tc.status || out.String() != tc.out || step != tc.step || errno != tc.errno {
				t.Errorf("status %d, said %q, at %q, %v; want %+v", got, &out, step, errno, tc)
			}
		})
	}
}

// It waits for what is not written yet, and goes on there; loops end.
func TestParts(t *testing.T) {
	s := newScript(t)
	r, w, err := os.Pipe()
	must(t, err)
	defer w.Close()
	n, buf := s.Words(0), s.Bytes(make([]byte, 8))
	s.Step("first part")
	s.Label("again")
	s.say("?")
	s.Add(Call{Number: unix.SYS_READ, Args: []Arg{Val(4), Val(buf), Val(1)}, Result: n})
	s.Branch(buf, 0xff, 'n', "again")
	must(t, s.Flush())
	back, out, err := os.Pipe()
	must(t, err)
	defer back.Close()
	cmd := start(t, s, out, r)
	must(t, errors.Join(r.Close(), out.Close()))
	var b [1]byte
	for _, answer := range []string{"n", "n"} {
		_, err := back.Read(b[:])
		must(t, err)
		if b[0] != '?' {
			t.Fatalf("it said %q", b)
		}
		_, err = w.WriteString(answer)
		must(t, err)
	}
	s.Step("second part")
	s.Branch(n, ^uint64(0), 1, "one")
	s.exitWith(1)
	s.Label("one")
	s.exitWith(3)
	must(t, s.Flush())
	_, err = w.WriteString("y")
	must(t, err)
	if got := status(cmd.Wait()); got != 3 {
		step, errno := s.Failure()
		t.Errorf("status %d at %q, %v", got, step, errno)
	}
}

// What cannot be written is an error before anything runs, and a process without a
// script ends.
func TestRefused(t *testing.T) {
	for name, add := range map[string]func(*Script){
		"zero byte": func(s *Script) { s.String("a\x00b") },
		"label":     func(s *Script) { s.Jump("nowhere") },
		"too long":  func(s *Script) { s.Bytes(make([]byte, maxSize)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			add(s)
			if err := s.Flush(); err == nil {
				t.Error("it was taken")
			}
		})
	}
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	if got := status(start(t, &Script{file: null}, nil).Wait()); got != 125 {
		t.Errorf("without a script: status %d, want 125", got)
	}
}

// Nobody can change the program.
func TestProgram(t *testing.T) {
	p, err := Program(1000)
	must(t, err)
	defer p.Close()
	if _, err := p.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("write: %v, want EPERM", err)
	}
	if got := len(code()); got < 200 || got > 400 {
		t.Errorf("%d bytes of instructions", got)
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		s, err := New()
		must(b, err)
		s.exitWith(0)
		must(b, s.Flush())
		p, err := Program(3)
		must(b, err)
		cmd := exec.Command("/proc/self/fd/" + strconv.Itoa(int(p.Fd())))
		cmd.ExtraFiles = []*os.File{s.File()}
		must(b, cmd.Run())
		must(b, errors.Join(p.Close(), s.Close()))
	}
}
