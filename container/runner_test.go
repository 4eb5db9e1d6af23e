package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

func TestStatuses(t *testing.T) {
	tree := newTree(t)
	must(t, os.WriteFile(filepath.Join(tree, "bin", "plain"), []byte("text"), 0o644))
	must(t, os.WriteFile(filepath.Join(tree, "bin", "nonsense"), []byte("text"), 0o755))
	must(t, os.WriteFile(filepath.Join(tree, "bin", "nointerp"), []byte("#!/no/such\n"), 0o755))
	for _, tt := range []struct {
		argv    string
		timeout time.Duration
		want    int
		message string
	}{
		{"work exit 0", 0, 0, ""},
		{"work exit 1", 0, 1, ""},
		{"work exit 42", 0, 42, ""},
		{"work exit 255", 0, 255, ""},
		{"work suicide 15", 0, 128 + 15, ""},
		{"work suicide 9", 0, 128 + 9, ""},
		{"work suicide 2", 0, 128 + 2, ""},
		{"work segv", 0, 128 + 11, ""},
		{"nosuch", 0, 127, `exec: "nosuch": executable file not found in $PATH`},
		{"/no/such", 0, 127, `exec: "/no/such": no such file or directory`},
		{"plain", 0, 126, `exec: "plain": permission denied`},
		{"/bin", 0, 126, `exec: "/bin": is a directory`},
		{"/bin/nonsense", 0, 126, `exec: "/bin/nonsense": exec format error`},
		{"nointerp", 0, 127, `exec: "nointerp": no such file or directory`},
		{"work sleep", 200 * time.Millisecond, 124, ""},
	} {
		t.Run(tt.argv, func(t *testing.T) {
			t.Parallel()
			spec := newSpec(tree)
			spec.Argv, spec.Timeout = strings.Fields(tt.argv), tt.timeout
			r := runIt(t, spec)
			if r.exit.Status() != tt.want || r.exit.Message != tt.message {
				t.Errorf("%+v: status %d %q, want %d %q; stderr %q", r.exit, r.exit.Status(), r.exit.Message, tt.want, tt.message, r.err)
			}
		})
	}
}

// What the kernel refuses to execute is the workload's failure, not duplex's.
func TestArgumentsTooLong(t *testing.T) {
	r := runIt(t, newSpec(newTree(t), strings.Repeat("x", 1<<20)))
	if want := `exec: "work": argument list too long`; r.exit.Status() != 126 || r.exit.Message != want {
		t.Errorf("%+v, want 126 %q", r.exit, want)
	}
}

func seen(t *testing.T, spec workload.Spec) view {
	t.Helper()
	r := runIt(t, spec)
	var v view
	if err := json.Unmarshal([]byte(r.out), &v); err != nil {
		t.Fatalf("%v: %v: %q %q", r.exit, err, r.out, r.err)
	}
	return v
}

// What a workload sees of its container with nothing set.
func TestView(t *testing.T) {
	// A descriptor that this process leaves open across exec must not get in.
	leak, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0)
	must(t, err)
	defer unix.Close(leak)

	spec := newSpec(newTree(t), "view")
	spec.Env = append(spec.Env, "A=b")
	spec.Cwd = "/made/for/it"
	v := seen(t, spec)
	for key, want := range map[string]string{
		"CapInh": "0000000000000000", "CapPrm": "00000000a80425fb", "CapEff": "00000000a80425fb",
		"CapBnd": "00000000a80425fb", "CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
		"Seccomp_filters": "1", "Umask": "0022", "Uid": "0 0 0 0", "Gid": "0 0 0 0", "PPid": "1",
		"SigBlk": "0000000000000000", "SigIgn": "0000000000000000",
	} {
		if v.Status[key] != want {
			t.Errorf("%s is %q, want %q", key, v.Status[key], want)
		}
	}
	for fd, to := range v.FDs {
		own := strings.HasPrefix(to, "anon_inode:") || strings.HasPrefix(to, "/proc/") ||
			strings.HasPrefix(to, "/sys/fs/cgroup/cpu") // what a Go program opens by itself
		if fd > "2" && !own {
			t.Errorf("descriptor %s leads to %s", fd, to)
		}
	}
	if v.FDs["0"] != "/dev/null" {
		t.Errorf("stdin is %s", v.FDs["0"])
	}
	if want := []string{"PATH=/bin", "A=b", "HOSTNAME=" + spec.ID[:12], "HOME=/"}; !slices.Equal(v.Env, want) {
		t.Errorf("environment %q, want %q", v.Env, want)
	}
	if v.Hostname != spec.ID[:12] || v.Cwd != spec.Cwd || v.Init != "duplex-init\x00" || v.Lo != "0x9" {
		t.Errorf("hostname %q, cwd %q, init %q, lo %q", v.Hostname, v.Cwd, v.Init, v.Lo)
	}
	if want := []string{"core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"}; !slices.Equal(v.Dev, want) {
		t.Errorf("/dev has %q, want %q", v.Dev, want)
	}
	if want := map[string]string{"core": "/proc/kcore", "fd": "/proc/self/fd", "ptmx": "pts/ptmx", "stderr": "/proc/self/fd/2",
		"stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1"}; !maps.Equal(v.Links, want) {
		t.Errorf("links %q, want %q", v.Links, want)
	}
	for line := range strings.Lines(v.Cgroup) {
		if strings.Contains(line, spec.ID) {
			t.Errorf("the cgroup namespace shows %q", line)
		}
	}
	checkMounts(t, v.Mounts)
}

// checkMounts: a device node is of use only where one was bound on purpose.
func checkMounts(t *testing.T, mounts []string) {
	t.Helper()
	bound := []string{"/dev/pts", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/console"}
	readOnly := []string{"/sys", "/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs"}
	points := map[string]bool{}
	for _, m := range mounts {
		point, options, _ := strings.Cut(m, " ")
		points[point] = true
		list := strings.Split(options, ",")
		masked := strings.HasPrefix(point, "/proc/") || strings.HasPrefix(point, "/sys/")
		if !slices.Contains(list, "nodev") && !slices.Contains(bound, point) && !masked {
			t.Errorf("%s is mounted %s: device nodes work there", point, options)
		}
		if (slices.Contains(readOnly, point) || masked) && !slices.Contains(list, "ro") {
			t.Errorf("%s is mounted %s: writable", point, options)
		}
	}
	for _, p := range append(readOnly, "/", "/proc", "/dev", "/dev/shm", "/dev/mqueue", "/proc/keys", "/proc/timer_list") {
		if _, err := os.Stat(p); err == nil && !points[p] {
			t.Errorf("nothing is mounted at %s", p)
		}
	}
}

func TestUser(t *testing.T) {
	tree := newTree(t)
	spec := newSpec(tree, "view")
	spec.User = workload.User{UID: 1000, GID: 1001, Groups: []uint32{7}, Home: "/home/u"}
	r, err := tryRun(t, spec, nil)
	if ids, perr := planIDs(workload.User{}, false, "x"); perr == nil && ids.single {
		var we *workload.Error
		if !errors.As(err, &we) || we.Remedy == "" {
			t.Fatalf("a user that is not mapped: %v, want a refusal with a remedy", err)
		}
		return
	}
	must(t, err)
	var v view
	must(t, json.Unmarshal([]byte(r.out), &v))
	for key, want := range map[string]string{
		"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000",
		"CapBnd": "00000000a80425fb", "CapAmb": "0000000000000000",
		"Uid": "1000 1000 1000 1000", "Gid": "1001 1001 1001 1001", "Groups": "7 1001",
	} {
		if v.Status[key] != want {
			t.Errorf("%s is %q, want %q", key, v.Status[key], want)
		}
	}
	if !slices.Contains(v.Env, "HOME=/home/u") {
		t.Errorf("environment %q", v.Env)
	}
}

// What a workload must not be able to do, and what it must.
func TestAttempts(t *testing.T) {
	r := runIt(t, newSpec(newTree(t), "try"))
	const (
		perm, access, rofs = "operation not permitted", "permission denied", "read-only file system"
		nosys, none        = "function not implemented", "<nil>"
	)
	want := map[string][]string{
		"mount": {perm}, "unshare": {perm}, "unshare user": {perm}, "umount": {perm}, "sethostname": {perm},
		"keyctl": {perm}, "bpf": {perm}, "clone3": {nosys}, "syscall 4000": {nosys},
		"ptrace init": {perm}, "init exe": {access}, "init root": {access}, "init mem": {access}, "init environ": {access},
		"stop init": {none}, "sysrq": {rofs, access, "no such file or directory"}, "write sysctl": {rofs, access}, "write sys": {rofs, access, "no such file or directory"},
		"timer_list": {"EOF"}, "firmware": {"no such file or directory"},
		"use null": {none}, "use zero": {none}, "use full": {"no space left on device"}, "use random": {none}, "use urandom": {none},
	}
	for _, dir := range []string{"/", "/dev", "/tmp", "/dev/shm"} {
		want["mknod "+dir] = []string{none, perm, access} // the last is Landlock's
		want["open node in "+dir] = []string{access, "no such file or directory"}
	}
	got := map[string]string{}
	for line := range strings.Lines(r.out) {
		name, outcome, _ := strings.Cut(strings.TrimSpace(line), ": ")
		got[name] = outcome
	}
	for name, outcomes := range want {
		if !slices.Contains(outcomes, got[name]) {
			t.Errorf("%s: %q, want one of %q", name, got[name], outcomes)
		}
	}
	if len(got) != len(want) || r.exit.Status() != 0 {
		t.Errorf("%d outcomes, want %d; %v %q", len(got), len(want), r.exit, r.err)
	}
}

func TestReadOnly(t *testing.T) {
	spec := newSpec(newTree(t), "view")
	spec.ReadOnly, spec.Cwd = true, "/new"
	v := seen(t, spec)
	if i := slices.IndexFunc(v.Mounts, func(m string) bool { return strings.HasPrefix(m, "/ ro,") }); i < 0 || v.Cwd != "/new" {
		t.Errorf("cwd %s, mounts %q", v.Cwd, v.Mounts)
	}
}

// Nothing that a workload writes gets into the image.
func TestImageStaysAsItIs(t *testing.T) {
	tree := newTree(t)
	for range 2 {
		spec := newSpec(tree, "try") // makes /mem, where it may
		spec.Cwd = "/made"
		runIt(t, spec)
	}
	entries, err := os.ReadDir(tree)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"bin", "etc", "tmp"}; !slices.Equal(names, want) {
		t.Errorf("the image's root holds %q, want %q", names, want)
	}
}

func TestStreams(t *testing.T) {
	tree := newTree(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 10<<20/16)
	t.Run("10 MB through pipes", func(t *testing.T) {
		spec := newSpec(tree, "cat")
		spec.Interactive = true
		r, err := tryRun(t, spec, func(s *workload.Stdio) { s.In = bytes.NewReader(big) })
		must(t, err)
		if r.out != string(big) {
			t.Errorf("%d bytes came back, of %d, or others", len(r.out), len(big))
		}
	})
	t.Run("files", func(t *testing.T) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "in"), big, 0o600))
		in, err := os.Open(filepath.Join(dir, "in"))
		must(t, err)
		defer in.Close()
		out, err := os.Create(filepath.Join(dir, "out"))
		must(t, err)
		defer out.Close()
		spec := newSpec(tree, "cat")
		spec.Interactive = true
		_, err = tryRun(t, spec, func(s *workload.Stdio) { s.In, s.Out = in, out })
		must(t, err)
		got, err := os.ReadFile(out.Name())
		must(t, err)
		if !bytes.Equal(got, big) {
			t.Errorf("%d bytes came back, of %d, or others", len(got), len(big))
		}
	})
	t.Run("not interactive", func(t *testing.T) {
		r, err := tryRun(t, newSpec(tree, "cat"), func(s *workload.Stdio) { s.In = strings.NewReader("secret") })
		must(t, err)
		if r.out != "" || r.exit.Status() != 0 {
			t.Errorf("%v, stdin reached the workload: %q", r.exit, r.out)
		}
	})
	t.Run("apart", func(t *testing.T) {
		r := runIt(t, newSpec(tree, "nosuchcommand"))
		if r.out != "" || r.err != "work: unknown nosuchcommand\n" || r.exit.Code != 99 {
			t.Errorf("%v %q %q", r.exit, r.out, r.err)
		}
	})
	t.Run("discarded", func(t *testing.T) {
		r, err := tryRun(t, newSpec(tree, "echo", "x"), func(s *workload.Stdio) { s.Out, s.Err = nil, nil })
		must(t, err)
		if r.exit.Status() != 0 {
			t.Error(r.exit)
		}
	})
	t.Run("a writer that fails", func(t *testing.T) {
		_, err := tryRun(t, newSpec(tree, "flood", "10000000"), func(s *workload.Stdio) { s.Out = failingWriter{} })
		if !errors.Is(err, io.ErrShortBuffer) {
			t.Errorf("%v, want the writer's error", err)
		}
	})
	t.Run("1 GB", func(t *testing.T) {
		size := int64(1 << 30)
		if testing.Short() {
			size = 1 << 26
		}
		var n counter
		r, err := tryRun(t, newSpec(tree, "flood", strconv.FormatInt(size, 10)), func(s *workload.Stdio) { s.Out = &n })
		must(t, err)
		if int64(n) != size || r.exit.Status() != 0 {
			t.Errorf("%d bytes, %v", n, r.exit)
		}
	})
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrShortBuffer }

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// An orphan that holds the output open ends with the workload.
func TestOrphans(t *testing.T) {
	start := time.Now()
	r := runIt(t, newSpec(newTree(t), "orphan"))
	if r.exit.Status() != 0 || time.Since(start) > 30*time.Second {
		t.Errorf("%v after %v", r.exit, time.Since(start))
	}
}

// waitFor is a writer that closes ready when text was written to it.
type waitFor struct {
	buf   bytes.Buffer // not embedded: io.Copy would find its ReadFrom
	text  string
	ready chan struct{}
}

func newWaitFor(text string) *waitFor { return &waitFor{text: text, ready: make(chan struct{})} }

func (w *waitFor) String() string { return w.buf.String() }

func (w *waitFor) Write(p []byte) (int, error) {
	seen := strings.Contains(w.String(), w.text)
	n, err := w.buf.Write(p)
	if !seen && strings.Contains(w.String(), w.text) {
		close(w.ready)
	}
	return n, err
}

func TestSignals(t *testing.T) {
	out, hungUp := newWaitFor("ready"), newWaitFor("hangup")
	signals := make(chan workload.Signal)
	go func() {
		<-out.ready
		signals <- workload.Signal(unix.SIGHUP)
		<-hungUp.ready // two at once may arrive in either order
		signals <- workload.Signal(unix.SIGINT)
	}()
	r, err := tryRun(t, newSpec(newTree(t), "trap"), func(s *workload.Stdio) {
		s.Out, s.Signals = io.MultiWriter(out, hungUp), signals
	})
	must(t, err)
	if r.exit.Status() != 7 || out.String() != "ready\nhangup\ninterrupt\n" {
		t.Errorf("%v %q", r.exit, out.String())
	}
}

func TestSignalKills(t *testing.T) {
	out := newWaitFor("sleeping")
	signals := make(chan workload.Signal)
	go func() { <-out.ready; signals <- workload.Signal(unix.SIGTERM) }()
	r, err := tryRun(t, newSpec(newTree(t), "sleep"), func(s *workload.Stdio) { s.Out, s.Signals = out, signals })
	must(t, err)
	if r.exit.Status() != 128+15 {
		t.Errorf("%v, want 143", r.exit)
	}
}

func TestCancel(t *testing.T) {
	tree := newTree(t)
	ctx, cancel := context.WithCancel(context.Background())
	out := newWaitFor("sleeping")
	go func() { <-out.ready; cancel() }()
	exit, err := Runner{}.Run(ctx, newSpec(tree, "sleep"), workload.Stdio{Out: out}, nil)
	if !errors.Is(err, context.Canceled) || exit.Status() != 137 {
		t.Errorf("%v %v, want context.Canceled and 137", exit, err)
	}
	exit, err = Runner{}.Run(ctx, newSpec(tree, "sleep"), workload.Stdio{Out: out}, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before it starts: %v %v", exit, err)
	}
}

func TestTTY(t *testing.T) {
	spec := newSpec(newTree(t), "tty")
	spec.TTY, spec.Interactive, spec.Size = true, true, workload.WinSize{Rows: 11, Cols: 22}
	out := newWaitFor("size 11 22")
	resize := make(chan workload.WinSize)
	in, feed := io.Pipe()
	go func() {
		<-out.ready
		resize <- workload.WinSize{Rows: 33, Cols: 44}
		_, _ = feed.Write([]byte("hello\n"))
	}()
	defer feed.Close()
	r, err := tryRun(t, spec, func(s *workload.Stdio) { s.In, s.Out, s.Resize = in, out, resize })
	must(t, err)
	got := strings.ReplaceAll(out.String(), "\r\n", "\n")
	got = strings.Replace(got, "hello\n", "", 1) // the echo, wherever it falls
	want := "link /dev/pts/0 console true\nsize 11 22 <nil>\nsize 33 44 <nil>\nline \"hello\\n\" <nil>\n"
	if r.exit.Status() != 0 || got != want {
		t.Errorf("%v\n got %q\nwant %q", r.exit, got, want)
	}
}

func TestPhases(t *testing.T) {
	before := workload.Now()
	r := runIt(t, newSpec(newTree(t), "echo", "x"))
	stamps, last := r.rec.Stamps(), before
	for _, p := range []workload.Phase{workload.PhaseCreated, workload.PhaseLoaded, workload.PhaseEntered,
		workload.PhaseWorkload, workload.PhaseExited, workload.PhaseTornDown} {
		if ns := stamps[p.String()]; ns <= last {
			t.Errorf("%v at %d, not after %d", p, ns, last)
		} else {
			last = ns
		}
	}
	if last > workload.Now() || r.rec.Usage().CPUNs <= 0 {
		t.Errorf("ends at %d, now %d; usage %+v", last, workload.Now(), r.rec.Usage())
	}
}
