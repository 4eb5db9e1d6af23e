package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ownRuntime gives the test a runtime directory of its own, and says at the end
// what is left in it.
func ownRuntime(t *testing.T) string {
	t.Helper()
	runtime := filepath.Join(t.TempDir(), "run")
	t.Setenv("DUPLEX_RUNTIME", runtime)
	return runtime
}

// detached starts a run in the background and returns its id.
func detached(t *testing.T, run []string, args ...string) string {
	t.Helper()
	r := duplex(t, nil, concat(run, []string{"-d"}, args)...)
	id := strings.TrimSpace(r.stdout)
	if r.status != 0 || len(id) != 32 {
		t.Fatalf("run -d: status %d, %q, %s", r.status, r.stdout, r.stderr)
	}
	t.Cleanup(func() { _ = exec.Command(bin, "rm", "-f", id).Run() })
	return id
}

// known is what inspect says of a run.
type known struct {
	ID, Name, State string
	Status          int
	PID             int
}

func inspected(t *testing.T, ref string) known {
	t.Helper()
	var list []known
	r := duplex(t, nil, "inspect", ref)
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil || len(list) != 1 {
		t.Fatalf("inspect: %v, %q, %s", err, r.stdout, r.stderr)
	}
	return list[0]
}

// A run in the background is listed, executes further commands, tells what it uses
// and has written, is stopped, and is forgotten when it is removed.
func TestControlDetached(t *testing.T) {
	each(t, func(t *testing.T, run []string) {
		runtime := ownRuntime(t)
		before := footprint(t, runtime)
		id := detached(t, run, "--name=web", "--memory=128m", image, "/helper", "sleep", runtime)
		if got := inspected(t, "web"); got.ID != id || got.State != "running" {
			t.Errorf("inspect: %+v", got)
		}
		during := strings.Join(footprint(t, runtime), "\n")
		if run[1] == "--container" && (!strings.Contains(during, "process /helper sleep") || !strings.Contains(during, "cgroup ")) {
			t.Errorf("while it runs there is only:\n%s", during)
		}
		if r := duplex(t, nil, "ps", "-q"); strings.TrimSpace(r.stdout) != id {
			t.Errorf("ps: %q", r.stdout)
		}
		for _, tt := range []struct {
			args   []string
			in     string
			status int
			out    string
		}{
			{args: []string{"web", "/helper", "exit", "42"}, status: 42},
			{args: []string{id[:6], "/helper", "kill", "9"}, status: 137},
			{args: []string{id, "/helper", "both"}, out: "out\n"},
			{args: []string{"-i", "web", "/helper", "cat"}, in: strings.Repeat("in", 200_000), out: strings.Repeat("in", 200_000)},
			{args: []string{"web", "/helper", "cat"}, in: "not taken"},
			{args: []string{"web", "nosuch"}, status: 127},
			{args: []string{"web", "/noexec"}, status: 126},
			{args: []string{"-d", "web", "/helper", "sleep", runtime}},
			{args: []string{"-d", "web", "nosuch"}, status: 127},
			{args: []string{"-u", "nobody-here", "web", "/helper"}, status: 125},
		} {
			r := duplex(t, strings.NewReader(tt.in), concat([]string{"exec"}, tt.args)...)
			if r.status != tt.status || tt.out != "out\n" && r.stdout != tt.out {
				t.Errorf("exec %q: status %d, %.60q, %s", tt.args, r.status, r.stdout, r.stderr)
			}
			if r.status >= 125 && r.status <= 127 && strings.Count(r.stderr, "\n") > 2 {
				t.Errorf("exec %q said %q", tt.args, r.stderr)
			}
		}
		r := duplex(t, nil, "exec", "-u", "app", "-w", "/tmp", "-e", "X=y", "web", "/helper", "about")
		for _, want := range []string{"1000", "/tmp", "X=y", "HOME=/home/app"} {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("about: no %s in %q, %s", want, r.stdout, r.stderr)
			}
		}
		var stats []struct {
			CPU         *float64 `json:"cpu_percent"`
			Memory      int64    `json:"memory"`
			MemoryLimit int64    `json:"memory_limit"`
			Pids        int64    `json:"pids"`
			NetworkIn   int64    `json:"network_in"`
			NetworkOut  int64    `json:"network_out"`
			Read        int64    `json:"block_read"`
			Written     int64    `json:"block_written"`
		}
		r = duplex(t, nil, "stats", "--no-stream", "--json", "web")
		if err := json.Unmarshal([]byte(r.stdout), &stats); err != nil || len(stats) != 1 || stats[0].CPU == nil || stats[0].Memory <= 0 || stats[0].MemoryLimit != 128<<20 {
			t.Errorf("stats: %v, %q, %s", err, r.stdout, r.stderr)
		} else if s := stats[0]; s.Pids < 2 || min(s.NetworkIn, s.NetworkOut, s.Read, s.Written) < 0 {
			t.Errorf("stats: something is not known: %+v", s)
		}
		if r := duplex(t, nil, "stop", "-t", "60", "web"); r.status != 0 || r.stdout != "web\n" {
			t.Errorf("stop: %d, %q, %s", r.status, r.stdout, r.stderr)
		}
		if got := inspected(t, id); got.State != "exited" || got.Status != 143 {
			t.Errorf("after stop: %+v", got)
		}
		if r := duplex(t, nil, "wait", "web"); r.stdout != "143\n" {
			t.Errorf("wait: %q, %s", r.stdout, r.stderr)
		}
		if r := duplex(t, nil, "rm", "web"); r.status != 0 {
			t.Errorf("rm: %s", r.stderr)
		}
		if after := footprint(t, runtime); !slices.Equal(before, after) {
			t.Errorf("left behind:\n%s\nbefore:\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
		}
	})
}

// The log keeps the streams apart, and is followed to the end.
func TestControlLogs(t *testing.T) {
	each(t, func(t *testing.T, run []string) {
		ownRuntime(t)
		id := detached(t, run, "-i", image, "/helper", "cat")
		follow := exec.Command(bin, "logs", "-f", id)
		var followed bytes.Buffer
		follow.Stdout = &followed
		if err := follow.Start(); err != nil {
			t.Fatal(err)
		}
		attach := exec.Command(bin, "attach", id)
		in, err := attach.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := attach.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := attach.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write([]byte("one\ntwo\nthree\n")); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		for _, want := range []string{"one\n", "two\n", "three\n"} {
			if got, err := lines.ReadString('\n'); got != want {
				t.Fatalf("attach: %q, %v", got, err)
			}
		}
		if r := duplex(t, nil, "logs", "--tail", "2", id); r.stdout != "two\nthree\n" {
			t.Errorf("logs: %q, %s", r.stdout, r.stderr)
		}
		if r := duplex(t, nil, "kill", id); r.status != 0 {
			t.Errorf("kill: %s", r.stderr)
		}
		if got := status(t, attach.Wait()); got != 137 {
			t.Errorf("attach ended with %d", got)
		}
		if err := follow.Wait(); err != nil || followed.String() != "one\ntwo\nthree\n" {
			t.Errorf("logs -f: %v, %q", err, &followed)
		}
	})
}

// The background process is killed: nothing of the run is left, and it is known
// as killed.
func TestControlKilled(t *testing.T) {
	each(t, func(t *testing.T, run []string) {
		runtime := ownRuntime(t)
		before := footprint(t, runtime)
		id := detached(t, run, "--name=gone", image, "/helper", "sleep", runtime)
		if err := unix.Kill(inspected(t, id).PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if r := duplex(t, nil, "wait", "gone"); r.stdout != "137\n" {
			t.Errorf("wait: %q, %s", r.stdout, r.stderr)
		}
		if r := duplex(t, nil, concat(run, []string{"-d", "--name=gone", image, "/helper", "exit", "0"})...); r.status != 125 || !strings.Contains(r.stderr, "in use") {
			t.Errorf("the name of one that is kept: %d, %s", r.status, r.stderr)
		}
		if r := duplex(t, nil, "rm", "gone"); r.status != 0 {
			t.Errorf("rm: %s", r.stderr)
		}
		if after := footprint(t, runtime); !slices.Equal(before, after) {
			t.Errorf("left behind:\n%s\nbefore:\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
		}
	})
}

func TestControlBadInputs(t *testing.T) {
	each(t, func(t *testing.T, run []string) {
		ownRuntime(t)
		id := detached(t, run, "--name=one", image, "/helper", "sleep")
		ended := detached(t, run, "--name=two", image, "/helper", "exit", "3")
		if r := duplex(t, nil, "wait", ended); r.stdout != "3\n" {
			t.Errorf("wait: %q, %s", r.stdout, r.stderr)
		}
		front := startSleep(t, []string{"run", "--container", "--name=front"}) // either isolation will do
		for _, tt := range []struct {
			args   []string
			status int
			says   string
		}{
			{[]string{"logs", "front"}, 125, "front is in the foreground"},
			{[]string{"attach", "front"}, 125, "front is in the foreground"},
			{[]string{"exec", "nobody", "true"}, 125, `no such run: "nobody"`},
			{[]string{"exec", "one"}, 125, "no command given"},
			{[]string{"exec", "two", "true"}, 125, "not running"},
			{[]string{"exec", "-it", "one", "true"}, 125, "not a TTY"},
			{[]string{"exec", "-w", "tmp", "one", "true"}, 125, "not an absolute path"},
			{[]string{"rm", "one"}, 125, "it is running"},
			{[]string{"rm"}, 125, "no run given"},
			{[]string{"kill", "two"}, 125, "not running"},
			{[]string{"kill", "-s", "NONE", "one"}, 125, `signal "NONE" is not known`},
			{[]string{"stop", "-t", "-1", "one"}, 125, "negative"},
			{[]string{"attach", "two"}, 125, "not running"},
			{[]string{"logs", "--tail=x", "one"}, 125, "want a number"},
			{[]string{"logs", "nobody"}, 125, "no such run"},
			{[]string{"stats", "--no-stream", "two"}, 125, "not running"},
			{[]string{"wait", "nobody"}, 125, "no such run"},
			{concat(run, []string{"-d", "--name=one", image, "/helper", "exit", "0"}), 125, `the name "one" is in use`},
			{concat(run, []string{"-d", image, "nosuch"}), 127, "not found"},
		} {
			r := duplex(t, nil, tt.args...)
			if r.status != tt.status || !strings.Contains(r.stderr, tt.says) || strings.Count(r.stderr, "\n") > 2 {
				t.Errorf("%q: status %d, %q, want %d and %q", tt.args, r.status, r.stderr, tt.status, tt.says)
			}
		}
		if r := duplex(t, nil, "kill", "front"); r.status != 0 || waitStatus(t, front) != 137 {
			t.Errorf("kill: %s", r.stderr)
		}
		if r := duplex(t, nil, "rm", "-f", "one", "two"); r.status != 0 || r.stdout != "one\ntwo\n" {
			t.Errorf("rm -f %s: %q, %s", id, r.stdout, r.stderr)
		}
		r := duplex(t, nil, concat(run, []string{"-d", "--rm", image, "/helper", "exit", "0"})...)
		if r.status != 0 {
			t.Fatal(r.stderr)
		}
		_ = duplex(t, nil, "wait", strings.TrimSpace(r.stdout)) // it may be forgotten already
		if r := duplex(t, nil, "ps", "-aq"); r.stdout != "" {
			t.Errorf("left: %q", r.stdout)
		}
	})
}

// In the automatic lab the same commands reach into the machine.
func TestControlAnywhere(t *testing.T) {
	if inLab() {
		return // the host's
	}
	ownRuntime(t)
	id := detached(t, []string{"run", "--vm"}, "--name=far", image, "/helper", "sleep")
	if r := duplex(t, nil, "exec", "far", "/helper", "exit", "42"); r.status != 42 {
		t.Errorf("exec: status %d, %s", r.status, r.stderr)
	}
	if r := duplex(t, strings.NewReader("through"), "exec", "-i", "far", "/helper", "cat"); r.stdout != "through" {
		t.Errorf("exec -i: %q, %s", r.stdout, r.stderr)
	}
	if r := duplex(t, nil, "exec", id, "nosuch"); r.status != 127 {
		t.Errorf("exec nosuch: status %d, %s", r.status, r.stderr)
	}
	if r := duplex(t, nil, "stats", "--no-stream", "far"); r.status != 0 || !strings.Contains(r.stdout, "/ 512MiB") {
		t.Errorf("stats: %q, %s", r.stdout, r.stderr)
	}
	if r := duplex(t, nil, "stop", "-t", "60", "far"); r.status != 0 {
		t.Errorf("stop: %s", r.stderr)
	}
	if got := inspected(t, id); got.State != "exited" || got.Status != 143 {
		t.Errorf("after stop: %+v", got)
	}
}

// onTerminal is a duplex command with a terminal of its own, as a shell starts it.
type onTerminal struct {
	t             *testing.T
	master, slave *os.File
	cmd           *exec.Cmd
	said          strings.Builder
}

func startOnTerminal(t *testing.T, args ...string) *onTerminal {
	t.Helper()
	master, slave := openPTY(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	c := &onTerminal{t: t, master: master, slave: slave, cmd: exec.CommandContext(ctx, bin, args...)}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = slave, slave, slave
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

// await reads until want was said, since the last time.
func (c *onTerminal) await(want string) {
	c.t.Helper()
	buf := make([]byte, 4096)
	for !strings.Contains(c.said.String(), want) {
		n, err := c.master.Read(buf)
		if err != nil {
			c.t.Fatalf("the terminal said %q, then %v; want %q", c.said.String(), err, want)
		}
		c.said.Write(buf[:n])
	}
	_, rest, _ := strings.Cut(c.said.String(), want)
	c.said.Reset()
	c.said.WriteString(rest)
}

func (c *onTerminal) types(text string) {
	c.t.Helper()
	if _, err := c.master.WriteString(text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *onTerminal) resize(rows, cols uint16) {
	c.t.Helper()
	if err := unix.IoctlSetWinsize(int(c.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		c.t.Fatal(err)
	}
}

// A shell of its own session, in run -it and in exec -it: window sizes arrive,
// Ctrl-C interrupts what is in the foreground, Ctrl-Z stops it, and fg goes on.
func TestControlJobs(t *testing.T) {
	d := needDebian(t)
	each(t, func(t *testing.T, run []string) {
		ownRuntime(t)
		id := detached(t, run, d.ref, "sleep", "1000")
		for name, args := range map[string][]string{
			"run":  concat(run, []string{"-it", "-e", "PS1=ready:", d.ref, "sh"}),
			"exec": {"exec", "-it", "-e", "PS1=ready:", id, "sh"},
		} {
			t.Run(name, func(t *testing.T) {
				c := startOnTerminal(t, args...)
				c.await("ready:")
				c.types("stty size\n")
				c.await("40 100")
				c.resize(33, 77)
				c.types("while [ \"$(stty size)\" != '33 77' ]; do :; done; stty size\n")
				c.await("33 77\r\n")
				c.await("ready:")
				c.types("/helper job\n")
				c.await("it runs\r\n")
				c.types("\x1a")
				c.await("Stopped")
				c.await("ready:")
				c.types("fg\n")
				c.await("it goes on\r\n")
				c.types("\x03")
				c.await("ready:")
				c.types("echo status=$?\n")
				c.await("status=130")
				c.types("exit 9\n")
				if got := waitStatus(t, c.cmd); got != 9 {
					t.Errorf("status %d, want 9", got)
				}
			})
		}
	})
}

// attach leaves a run by its keys, and comes back to it.
func TestControlAttach(t *testing.T) {
	d := needDebian(t)
	each(t, func(t *testing.T, run []string) {
		ownRuntime(t)
		id := detached(t, run, "-it", "-e", "PS1=ready:", d.ref, "sh")
		c := startOnTerminal(t, "attach", id)
		c.types("x=5; echo set-$x\n")
		c.await("set-5")
		c.types("\x10\x11")
		c.await("detached from")
		if got := waitStatus(t, c.cmd); got != 0 {
			t.Errorf("status %d after detaching", got)
		}
		if got := inspected(t, id); got.State != "running" {
			t.Errorf("after detaching: %+v", got)
		}
		c = startOnTerminal(t, "attach", id)
		c.types("exit $((x + 2))\n")
		if got := waitStatus(t, c.cmd); got != 7 {
			t.Errorf("status %d, want 7", got)
		}
	})
}
