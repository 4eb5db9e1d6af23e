package runs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if id := os.Getenv("RUNS_TEST_RUN"); id != "" {
		o, err := Create(Record{ID: id, Name: os.Getenv("RUNS_TEST_NAME"), Detached: id != "foreground", Started: time.Now()})
		if err == nil {
			_, err = o.Serve(Target{})
		}
		if err != nil {
			os.Exit(1)
		}
		_, _ = os.Stdout.WriteString("ready\n")
		select {}
	}
	os.Exit(m.Run())
}

func TestRecords(t *testing.T) {
	t.Setenv("DUPLEX_RUNTIME", t.TempDir())
	one, err := Create(Record{ID: "aa1", Name: "one", Detached: true, Created: time.Unix(1, 0), Started: time.Unix(2, 0)})
	if err != nil {
		t.Fatal(err)
	}
	two, err := Create(Record{ID: "aa2", Created: time.Unix(3, 0)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(Record{ID: "bb", Name: "one"}); err == nil || !strings.Contains(err.Error(), `"one" is in use by run aa1`) {
		t.Errorf("a name twice: %v", err)
	}
	if _, err := Create(Record{ID: "aa1"}); err == nil {
		t.Error("an id twice")
	}
	for ref, want := range map[string]string{"one": "aa1", "aa1": "aa1", "aa2": "aa2", "aa": "ambiguous", "on": "no such run", "": "no such run", "../..": "no such run"} {
		r, err := Find(ref)
		if got := r.ID; got != want && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %q, %v, want %s", ref, got, err, want)
		}
	}
	if err := Remove("aa1"); err == nil {
		t.Error("removed one that runs")
	}
	if err := errors.Join(one.Finish(workload.Exit{Code: 3}, nil), two.Finish(workload.Exit{}, nil)); err != nil {
		t.Error(err)
	}
	list, err := List()
	if err != nil || len(list) != 1 || list[0].State() != "exited" || list[0].Status() != 3 {
		t.Errorf("%+v, %v", list, err)
	}
	if exit, err := AwaitEnd(t.Context(), "aa1"); err != nil || exit.Code != 3 {
		t.Errorf("%v, %v", exit, err)
	}
	if err := Remove("aa1"); err != nil {
		t.Error(err)
	}
	if list, err := List(); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// isForgotten says whether err is that of a run whose end came too early to be
// waited for.
func isForgotten(err error) bool {
	return errors.Is(err, errForgotten) || strings.Contains(err.Error(), "no such run")
}

// What a killed process leaves is settled by whoever looks next.
func TestKilled(t *testing.T) {
	t.Setenv("DUPLEX_RUNTIME", t.TempDir())
	for _, id := range []string{"detached", "foreground"} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "RUNS_TEST_RUN="+id, "RUNS_TEST_NAME=name-"+id)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		if r, err := Find(id); err != nil || r.State() != "running" {
			t.Errorf("%s: %+v, %v", id, r, err)
		}
		waited := make(chan error, 1)
		go func() {
			exit, err := AwaitEnd(t.Context(), id)
			if err == nil && exit.Status() != 137 {
				err = errors.Join(err, errors.New(exit.String()))
			}
			waited <- err
		}()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err := <-waited; err != nil && (id == "detached" || !isForgotten(err)) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if err := Sweep(); err != nil {
		t.Error(err)
	}
	list, err := List()
	if err != nil || len(list) != 1 || list[0].ID != "detached" || list[0].Status() != 137 || list[0].Exit.Message == "" {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := Create(Record{ID: "new", Name: "name-foreground"}); err != nil {
		t.Error(err)
	}
}

// pair returns both ends of a connection.
func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
		t.Cleanup(func() { _ = c.Close() })
	}
	return ends[0], ends[1]
}

func TestMessages(t *testing.T) {
	a, b := pair(t)
	long := &Message{Type: Exec, Exec: &Command{Argv: []string{strings.Repeat("x", 1<<20)}}}
	go func() {
		_ = write(a, long, os.Stdin, os.Stdout, os.Stderr)
		_ = write(a, &Message{Type: Stats})
		_ = a.Close()
	}()
	m, files, err := receive(b)
	if err != nil || m.Exec.Argv[0] != long.Exec.Argv[0] || len(files) != 3 {
		t.Errorf("%d files, %v", len(files), err)
	}
	closeAll(files)
	if m, files, err := receive(b); err != nil || m.Type != Stats || len(files) != 0 {
		t.Errorf("%+v, %d files, %v", m, len(files), err)
	}
	if _, _, err := receive(b); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	for _, bad := range []*Message{
		{Type: "x"}, {Type: Exec}, {Type: Exec, Exec: &Command{}}, {Type: Exec, Exec: &Command{Argv: []string{"a\x00"}}},
		{Type: Exec, Exec: &Command{Argv: []string{"a"}, Cwd: "b"}}, {Type: Signal}, {Type: Signal, Number: 65}, {Type: Attach},
		{Type: Ended, Exit: &workload.Exit{Code: 256}}, {Type: Ended}, {Type: Failed}, {Type: Counts},
	} {
		if bad.check() == nil {
			t.Errorf("accepted %+v", bad)
		}
	}
}

// Whatever a caller sends, it is one message that is as it should be, or none.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("\x10\x00\x00\x00{\"type\":\"stats\"}"))
	f.Add([]byte("\x2c\x00\x00\x00{\"type\":\"exec\",\"exec\":{\"argv\":[\"a\"],\"tty\":1}}"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Add([]byte("\x00\x00\x7f\x00{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decode(bytes.NewReader(data))
		if err == nil && m.check() != nil {
			t.Errorf("%+v is not as it should be", m)
		}
	})
}

// fake acts on a workload that is not there.
type fake struct{ got chan workload.Spec }

func (f fake) Exec(ctx context.Context, spec workload.Spec, stdio workload.Stdio) (workload.Exit, error) {
	f.got <- spec
	if spec.Argv[0] == "wait" {
		if stdio.Running != nil {
			stdio.Running(f)
		}
		<-ctx.Done()
		return workload.Exit{}, ctx.Err()
	}
	sig := <-stdio.Signals
	_, err := stdio.Out.Write([]byte(spec.Argv[0]))
	return workload.Exit{Signal: int(sig)}, err
}

func (fake) Stats(context.Context) (workload.Stats, error) { return workload.Stats{Pids: 7}, nil }

func TestServer(t *testing.T) {
	t.Setenv("DUPLEX_RUNTIME", t.TempDir())
	o, err := Create(Record{ID: "srv", Detached: true, Remove: true, Started: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	signals := make(chan workload.Signal, 1)
	w := workload.Spec{Env: []string{"A=1", "HOME=/root", "B=2"}, Cwd: "/w", User: workload.User{Home: "/root"}}
	s, err := o.Serve(Target{Spec: w, Signal: func(s workload.Signal) { signals <- s }, User: func(name string) (workload.User, error) {
		if name == "app" {
			return workload.User{UID: 5, Home: "/app"}, nil
		}
		return workload.User{}, errors.New("no user " + name)
	}})
	if err != nil {
		t.Fatal(err)
	}
	f := fake{make(chan workload.Spec, 1)}
	s.Running(f)
	ask := func(m *Message) (*Message, error) { return Ask(t.Context(), "srv", m) }
	if m, err := ask(&Message{Type: Stats}); err != nil || m.Stats.Pids != 7 {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := ask(&Message{Type: Signal, Number: 12}); err != nil || <-signals != 12 {
		t.Errorf("signal: %v", err)
	}
	for bad, m := range map[string]*Message{
		"no user x":        {Type: Exec, Exec: &Command{Argv: []string{"a"}, User: "x"}},
		"no value":         {Type: Exec, Exec: &Command{Argv: []string{"a"}, Env: []string{"X"}}},
		"does not begin":   {Type: Resize, Size: &workload.WinSize{}},
		"not detached":     {Type: Attach, Size: &workload.WinSize{}},
		"process has gone": {Type: "nonsense"},
	} {
		if _, err := ask(m); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%v, want %q", err, bad)
		}
	}
	c, err := Dial("srv")
	if err != nil {
		t.Fatal(err)
	}
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	first := &Message{Type: Exec, Exec: &Command{Argv: []string{"hello"}, User: "app", Env: []string{"B=3"}}}
	if err := errors.Join(c.Send(first, out, out, out), out.Close(), c.Send(&Message{Type: Signal, Number: 9})); err != nil {
		t.Fatal(err)
	}
	m, err := c.Receive(t.Context())
	if err != nil || m.Exit.Signal != 9 {
		t.Errorf("%+v, %v", m, err)
	}
	spec := <-f.got
	if !slices.Equal(spec.Env, []string{"A=1", "B=3"}) || spec.Cwd != "/w" || spec.User.UID != 5 {
		t.Errorf("spec %+v", spec)
	}
	text := make([]byte, 5)
	if _, err := io.ReadFull(r, text); err != nil || string(text) != "hello" {
		t.Errorf("%q, %v", text, err)
	}
	_ = c.Close()
	if m, err := ask(&Message{Type: Exec, Exec: &Command{Argv: []string{"wait"}, Detach: true}}); err != nil || m.Type != Started {
		t.Errorf("detached: %+v, %v", m, err)
	}
	<-f.got
	ended := make(chan error, 1)
	go func() {
		exit, err := AwaitEnd(t.Context(), "srv")
		if err == nil && exit.Code != 4 {
			err = errors.Join(err, errors.New(exit.String()))
		}
		ended <- err
	}()
	for { // until it is waited for
		if c, err := Dial("srv"); err == nil {
			_ = c.Close()
			break
		}
	}
	if err := o.Finish(workload.Exit{Code: 4}, nil); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil && !isForgotten(err) {
		t.Error(err)
	}
}

func TestLog(t *testing.T) {
	t.Setenv("DUPLEX_RUNTIME", t.TempDir())
	o, err := Create(Record{ID: "log", Detached: true, Started: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	var stdio workload.Stdio
	if _, err := o.NewHub(false, &stdio); err != nil {
		t.Fatal(err)
	}
	for i, s := range []string{"one\ntw", "o\n", "three\n", "four"} {
		if _, err := []io.Writer{stdio.Out, stdio.Out, stdio.Err, stdio.Out}[i].Write([]byte(s)); err != nil {
			t.Error(err)
		}
	}
	for tail, want := range map[int][2]string{
		-1: {"one\ntwo\nfour", "three\n"}, 0: {}, 1: {"four", ""}, 2: {"four", "three\n"}, 3: {"two\nfour", "three\n"}, 4: {"one\ntwo\nfour", "three\n"}, 9: {"one\ntwo\nfour", "three\n"},
	} {
		var out, errs bytes.Buffer
		if err := Log(t.Context(), "log", tail, false, &out, &errs); err != nil || out.String() != want[0] || errs.String() != want[1] {
			t.Errorf("tail %d: %q, %q, %v", tail, &out, &errs, err)
		}
	}
	// Followed across a change of files, to the end.
	var got bytes.Buffer
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := Log(t.Context(), "log", 0, true, w, io.Discard)
		_ = w.Close()
		done <- err
	}()
	copied := make(chan struct{})
	begun := make(chan struct{})
	go func() {
		defer close(copied)
		first := make([]byte, 1)
		_, _ = io.ReadFull(r, first)
		close(begun)
		_, _ = io.Copy(&got, r)
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for begin := true; begin; { // until it follows
		_, _ = stdio.Out.Write([]byte("."))
		select {
		case <-begun:
			begin = false
		case <-tick.C:
		}
	}
	big := bytes.Repeat([]byte("x"), maxFrame)
	for range LogLimit/maxFrame + 2 {
		_, _ = stdio.Out.Write(big)
	}
	_, _ = stdio.Out.Write([]byte("end"))
	if err := o.Finish(workload.Exit{}, nil); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	<-copied
	if text := strings.TrimLeft(got.String(), "."); len(text) != LogLimit+2*maxFrame+3 || !strings.HasSuffix(text, "end") {
		t.Errorf("followed %d bytes", len(text))
	}
	dir, _ := Dir("log")
	if st, err := os.Stat(filepath.Join(dir, oldName)); err != nil || st.Size() < LogLimit {
		t.Errorf("the older file: %v", err)
	}
}

// A damaged log is an error, and half a frame at its end waits for the rest.
func FuzzLog(f *testing.F) {
	f.Add([]byte("\x01\x02\x00\x00\x00hi\x02\x01\x00\x00\x00!"))
	f.Add([]byte("\x03\x02\x00\x00\x00hi"))
	f.Add([]byte("\x01\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		total := 0
		for {
			fr, err := readFrame(r)
			if err != nil {
				break
			}
			total += headSize + len(fr.data)
		}
		if total > len(data) {
			t.Errorf("%d bytes of %d", total, len(data))
		}
	})
}
