package jail

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/confine"
)

// helperName is argv[0] of a test's process in the jail. Its arguments are the
// role, the attempt, and "isolated" or "here".
const helperName = "duplex-jail-test"

// whileSaving before an attempt has the monitor be one that saves its machine.
const whileSaving = "while saving: "

func TestMain(m *testing.M) {
	if os.Args[0] == helperName {
		helper(Role(os.Args[1][0]-'0'), os.Args[2], os.Args[3] == "isolated")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// helper enters the jail and makes the attempt on a thread of the role.
func helper(role Role, attempt string, isolated bool) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	fds, err := openForAttempts()
	fail(err)
	attempt, saves := strings.CutPrefix(attempt, whileSaving)
	j, err := Enter(Config{Report: os.NewFile(3, "report"), Isolated: isolated, Saves: saves})
	fail(err)
	fmt.Printf("layers %+v\n", j.Layers)
	run := attempts[attempt].run
	done := make(chan error)
	go func() {
		if role == VCPU {
			runtime.LockOSThread() // for good, as a vCPU
			if err := j.EnterVCPU(); err != nil {
				done <- err
				return
			}
		}
		done <- run(fds)
	}()
	fail(<-done)
	fmt.Println("done")
}

// jailed is how a helper ended.
type jailed struct {
	out    string
	status int
	denied *Denied
}

// inJail makes an attempt in a process of its own.
func inJail(t testing.TB, role Role, attempt string, who confine.Identity, isolated bool) jailed {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	mode := "here"
	var out bytes.Buffer
	cmd := &exec.Cmd{Path: "/proc/self/exe", Stdout: &out, Stderr: &out, ExtraFiles: []*os.File{w}}
	if isolated {
		mode = "isolated"
		cmd.SysProcAttr = Attributes(who)
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	}
	cmd.Args = []string{helperName, fmt.Sprint(int(role)), attempt, mode}
	runtime.LockOSThread() // the parent of Pdeathsig
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	werr := cmd.Wait()
	d, err := ReadDenial(r)
	if err != nil {
		t.Fatalf("%v; %v, %s", err, werr, &out)
	}
	return jailed{strings.TrimSpace(out.String()), cmd.ProcessState.ExitCode(), d}
}

// files are opened before the jail is entered.
type files struct {
	file, event *os.File
	pair        [2]*os.File
}

func openForAttempts() (f files, err error) {
	if f.file, err = os.CreateTemp("", "duplex-jail"); err != nil {
		return f, err
	}
	if err := os.Remove(f.file.Name()); err != nil {
		return f, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return f, err
	}
	f.pair = [2]*os.File{os.NewFile(uintptr(fds[0]), "left"), os.NewFile(uintptr(fds[1]), "right")}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	f.event = os.NewFile(uintptr(event), "event")
	return f, err
}
