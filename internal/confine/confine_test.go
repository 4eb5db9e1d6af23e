package confine

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// helperName is argv[0] of a test's confined process; its argument is what it
// does, and it prints a view.
const helperName = "duplex-confine-test"

// view is what a confined process finds.
type view struct {
	PID        int
	UID        int
	Root       []string
	Interfaces []string
	Caps       int    // sets of capabilities of any thread that are not empty
	NoNewPrivs int    // threads without
	Passwd     string // the error of opening it
	Write      string // the error of making a file in the root
	Landlock   string // the error of opening a file outside
	Inside     string // the error of reading a file inside
	InsideTo   string // the error of making one
	Core       uint64
}

func TestMain(m *testing.M) {
	if os.Args[0] == helperName {
		v, err := helper(os.Args[1])
		if err == nil {
			err = json.NewEncoder(os.Stdout).Encode(v)
		}
		if err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func helper(what string) (v view, err error) {
	switch what {
	case "landlock":
		return landlocked()
	case "nested": // isolate a process without being root
		cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{helperName, "isolated"}, Stderr: os.Stderr, SysProcAttr: isolated(Caller)}
		out, err := cmd.Output()
		return v, errors.Join(err, json.Unmarshal(out, &v))
	}
	status, err := os.Open("/proc/self/task") // stays usable
	if err != nil {
		return v, err
	}
	if what == "isolated" {
		err = EmptyRoot()
	}
	err = errors.Join(err, SetLimits(Limit{unix.RLIMIT_CORE, 0}), Undumpable(), DropCapabilities(0), NoNewPrivs())
	if err != nil {
		return v, err
	}
	v.PID, v.UID = os.Getpid(), os.Getuid()
	list, err := os.ReadDir("/")
	for _, e := range list {
		v.Root = append(v.Root, e.Name())
	}
	ifs, ierr := net.Interfaces()
	for _, i := range ifs {
		v.Interfaces = append(v.Interfaces, i.Name)
	}
	_, perr := os.ReadFile("/etc/passwd")
	v.Passwd = text(perr)
	v.Write = text(os.WriteFile("/x", nil, 0o600))
	var limit unix.Rlimit
	lerr := unix.Getrlimit(unix.RLIMIT_CORE, &limit)
	v.Core = limit.Max
	return v, errors.Join(err, ierr, lerr, v.threads(status))
}

// threads looks at every thread through its own eyes.
func (v *view) threads(task *os.File) error {
	names, err := task.Readdirnames(-1)
	if err == nil && len(names) < 2 {
		err = errors.New("one thread: the test would show nothing")
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		fd, err := unix.Openat(int(task.Fd()), name+"/status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		buf := make([]byte, 8192)
		n, err := unix.Read(fd, buf)
		if err = errors.Join(err, unix.Close(fd)); err != nil {
			return err
		}
		for line := range strings.Lines(string(buf[:n])) {
			switch f := strings.Fields(line); f[0] {
			case "CapEff:", "CapPrm:", "CapInh:", "CapAmb:":
				if strings.Trim(f[1], "0") != "" {
					v.Caps++
				}
			case "NoNewPrivs:":
				if f[1] != "1" {
					v.NoNewPrivs++
				}
			}
		}
	}
	return nil
}

func landlocked() (v view, err error) {
	dir, err := os.Open(os.Args[2])
	if err != nil {
		return v, err
	}
	if err := errors.Join(NoNewPrivs(), Landlock(Beneath{Dir: dir, ReadOnly: os.Args[3] == "ro"})); err != nil {
		return v, err
	}
	done := make(chan struct{})
	go func() { // on some other thread, as a rule
		defer close(done)
		runtime.LockOSThread()
		_, oerr := os.Open("/etc/passwd")
		v.Landlock = text(oerr)
		_, rerr := os.ReadFile(os.Args[2] + "/file")
		v.Inside = text(rerr)
		v.InsideTo = text(os.WriteFile(os.Args[2]+"/new", nil, 0o600))
	}()
	<-done
	return v, nil
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// run starts a confined process.
func run(t *testing.T, sys *syscall.SysProcAttr, args ...string) view {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: append([]string{helperName}, args...),
		Stdout: &out, Stderr: &errs, SysProcAttr: sys,
	}
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, &errs)
	}
	var v view
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	return v
}

func isolated(who Identity) *syscall.SysProcAttr {
	sys := &syscall.SysProcAttr{}
	Isolate(sys, who)
	return sys
}

// An isolated process sees no file, no network and no process.
func TestIsolated(t *testing.T) {
	who := map[string]Identity{"caller": Caller}
	if os.Getuid() == 0 {
		who["nobody"], who["everyone"] = Nobody, Everyone
	}
	for name, id := range who {
		t.Run(name, func(t *testing.T) {
			v := run(t, isolated(id), "isolated")
			if v.PID != 1 || (id != Caller && v.UID != 0) || (id == Caller && v.UID != os.Getuid()) || len(v.Root) != 0 || v.Caps != 0 || v.NoNewPrivs != 0 || v.Core != 0 {
				t.Errorf("%+v", v)
			}
			if len(v.Interfaces) > 1 || (len(v.Interfaces) == 1 && v.Interfaces[0] != "lo") {
				t.Errorf("interfaces %q", v.Interfaces)
			}
			if !strings.Contains(v.Passwd, "no such file") || !strings.Contains(v.Write, "read-only") {
				t.Errorf("passwd: %q, write: %q", v.Passwd, v.Write)
			}
		})
	}
}

// Without namespaces the rest still works, on every thread.
func TestHere(t *testing.T) {
	v := run(t, nil, "here")
	if v.Caps != 0 || v.NoNewPrivs != 0 || v.Core != 0 {
		t.Errorf("%+v", v)
	}
}

// What a user without privilege can do to its own processes.
func TestUnprivileged(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("TestIsolated has tested it: this is no root")
	}
	sys := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if v := run(t, sys, "here"); v.Caps != 0 || v.NoNewPrivs != 0 {
		t.Errorf("%+v", v)
	}
	if v := run(t, sys, "nested"); v.PID != 1 || v.UID != 65534 || len(v.Root) != 0 || v.Caps != 0 || v.NoNewPrivs != 0 || v.Passwd == "" {
		t.Errorf("%+v", v)
	}
}

func TestLandlock(t *testing.T) {
	if LandlockABI() == 0 {
		if err := Landlock(); !errors.Is(err, ErrNoLandlock) {
			t.Fatal(err)
		}
		t.Skip("the kernel has no Landlock")
	}
	for _, mode := range []string{"ro", "rw"} {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(dir+"/file", []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			v := run(t, nil, "landlock", dir, mode)
			if !strings.Contains(v.Landlock, "permission denied") || v.Inside != "" {
				t.Errorf("outside %q, inside %q", v.Landlock, v.Inside)
			}
			// The same of a single file.
			if v := run(t, nil, "landlock", dir+"/file", mode); !strings.Contains(v.Landlock, "permission denied") || !strings.Contains(v.Inside, "not a directory") {
				t.Errorf("a file: outside %q, inside %q", v.Landlock, v.Inside)
			}
			if got := strings.Contains(v.InsideTo, "permission denied"); got != (mode == "ro") {
				t.Errorf("writing: %q", v.InsideTo)
			}
		})
	}
}

// Each version of Landlock's interface forbids what the one before does, and more.
func TestLandlockVersions(t *testing.T) {
	before, size := handled(1)
	for abi := 2; abi < 10; abi++ {
		now, n := handled(abi)
		if now.fs&before.fs != before.fs || now.net&before.net != before.net || now.scoped&before.scoped != before.scoped || n < size {
			t.Errorf("version %d: %+v in %d bytes after %+v in %d", abi, now, n, before, size)
		}
		before, size = now, n
	}
}

func TestSetFilterRefuses(t *testing.T) {
	for _, n := range []int{0, unix.BPF_MAXINSNS + 1} {
		if err := SetFilter(make([]unix.SockFilter, n), false); err == nil {
			t.Errorf("%d instructions were taken", n)
		}
	}
}

// A program that was built with cgo is told what is wrong with it.
func TestCgo(t *testing.T) {
	if err := onThreads(syscall.ENOTSUP); !errors.Is(err, ErrCgo) {
		t.Errorf("%v, want %v", err, ErrCgo)
	}
	if err := onThreads(syscall.EPERM); !errors.Is(err, syscall.EPERM) {
		t.Errorf("%v, want %v", err, syscall.EPERM)
	}
}
