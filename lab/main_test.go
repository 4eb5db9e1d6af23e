package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// The test binary is also the command that the tests run in the lab, and the
// duplex that they kill: helperEnv says which.
const helperEnv = "LAB_TEST_HELPER"

func TestMain(m *testing.M) {
	helpers := map[string]func() error{
		"files": helpFiles, "wait": helpWait, "terminal": helpTerminal, "crash": helpCrash, "run": helpRun,
		"spew": helpSpew,
	}
	name := os.Getenv(helperEnv)
	if name == "" {
		os.Exit(m.Run())
	}
	if err := helpers[name](); err != nil {
		fmt.Fprintln(os.Stderr, "helper:", err)
		os.Exit(1)
	}
	os.Exit(42)
}

// big is a carried file's size that is bound into place rather than copied.
const big = 3 << 20

// helpFiles looks around in the lab, reads and writes carried files, and copies
// stdin to stdout. os.Args: a carried directory, a small and a big file.
func helpFiles() error {
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if v, err := unix.IoctlRetInt(int(kvm.Fd()), 0xae00); err != nil || v != 12 { // KVM_GET_API_VERSION
		return fmt.Errorf("KVM API version %d, %w", v, err)
	}
	for path, magic := range map[string]int64{
		"/sys/fs/cgroup": unix.CGROUP2_SUPER_MAGIC, "/tmp": unix.TMPFS_MAGIC, "/dev/shm": unix.TMPFS_MAGIC,
		"/dev/pts": unix.DEVPTS_SUPER_MAGIC, "/sys/kernel/security": unix.SECURITYFS_MAGIC,
	} {
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err != nil || st.Type != magic {
			return fmt.Errorf("%s: file system %#x, %w", path, st.Type, err)
		}
	}
	if os.Getenv(InLab) != "1" || os.Getenv("HOME") == "" || os.Getenv("LAB_TEST_VALUE") != "a b" {
		return fmt.Errorf("environment: %q", os.Environ())
	}
	return errors.Join(helpWrite(), helpCopy())
}

func helpWrite() error {
	dir, small, big := os.Args[1], os.Args[2], os.Args[3]
	if got, err := os.ReadFile(filepath.Join(dir, "sub/kept")); err != nil || string(got) != "kept" {
		return fmt.Errorf("carried directory: %q, %w", got, err)
	}
	f, err := os.OpenFile(big, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("changed"), 1<<20)
	return errors.Join(err, f.Close(),
		os.WriteFile("new", []byte("new"), 0o640),
		os.MkdirAll("made/deep", 0o755),
		os.WriteFile("made/deep/.hidden", nil, 0o600),
		os.Symlink("/etc/passwd", "link"),
		os.WriteFile("/var/elsewhere", []byte("stays"), 0o600),
		os.WriteFile(filepath.Join(dir, "sub/changed"), []byte("after"), 0o600),
		os.WriteFile("part", []byte("renamed over"), 0o755),
		os.Rename("part", small), // as editors save
	)
}

func helpCopy() error {
	_, err := io.Copy(os.Stdout, os.Stdin)
	if err == nil {
		_, err = io.WriteString(os.Stderr, "to stderr")
	}
	return err
}

// helpWait says that it runs and waits for a signal.
func helpWait() error {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGUSR1)
	fmt.Println("ready")
	fmt.Println("got", <-c)
	select {}
}

func helpTerminal() error {
	ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
	if err != nil {
		return err
	}
	fmt.Printf("%dx%d\n", ws.Row, ws.Col)
	var line string
	if _, err := fmt.Scanln(&line); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "read %q\n", line)
	if _, err := fmt.Scanln(&line); !errors.Is(err, io.EOF) {
		return fmt.Errorf("at the end of stdin: %w", err)
	}
	return nil
}

// helpSpew writes until it cannot.
func helpSpew() error {
	for {
		if _, err := os.Stdout.WriteString("spew\n"); err != nil {
			return err
		}
	}
}

func helpCrash() error {
	return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
}

// helpRun is a duplex: it runs the wait helper in a lab, on the host.
func helpRun() error {
	o, err := options("wait")
	if err != nil {
		return err
	}
	_, err = Run(context.Background(), o, workload.Stdio{Out: os.Stdout, Err: os.Stderr}, nil)
	return err
}

// options run a helper of this binary.
func options(helper string, args ...string) (Options, error) {
	self, err := os.Executable()
	if err != nil {
		return Options{}, err
	}
	return Options{
		Argv: append([]string{self}, args...),
		Env:  []string{helperEnv + "=" + helper, "LAB_TEST_VALUE=a b"},
		Cwd:  filepath.Dir(self),
	}, nil
}

// inLab runs a helper to its end and checks that nothing of the lab is left.
func inLab(t *testing.T, change func(*Options), stdio workload.Stdio, helper string, args ...string) (workload.Exit, error) {
	t.Helper()
	boots(t)
	o, err := options(helper, args...)
	if err != nil {
		t.Fatal(err)
	}
	o.Cwd = t.TempDir()
	var log bytes.Buffer
	o.Console = &log
	if change != nil {
		change(&o)
	}
	before := descriptors(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	exit, err := Run(ctx, o, stdio, nil)
	if left := children(os.Getpid()); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
	if t.Failed() {
		t.Logf("console:\n%s", &log)
	}
	return exit, err
}

// boots marks a test that boots a machine, which takes seconds.
func boots(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a machine")
	}
}

// children lists the processes that pid started and that are still there.
func children(pid int) []string {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		panic(err)
	}
	var out []string
	for _, list := range lists {
		pids, _ := os.ReadFile(list)
		out = append(out, strings.Fields(string(pids))...)
	}
	return out
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
