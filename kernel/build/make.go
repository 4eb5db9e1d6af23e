package build

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maker runs make in a source tree, with all it makes in out.
type maker struct {
	tree, out, temp string
	log             *os.File
	// hold is inherited by everything that is started, see doc.go.
	hold *os.File
}

// stamp is the time of every build; it is what `uname -v` says.
const stamp = "Thu Jan  1 00:00:00 UTC 1970"

// environ has nothing of the user's that could reach the kernel: no CFLAGS, no
// ARCH, no MAKEFLAGS, no local time.
func (m *maker) environ() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + m.temp, "TMPDIR=" + m.temp, "LC_ALL=C", "TZ=UTC",
		"KBUILD_BUILD_TIMESTAMP=" + stamp, "KBUILD_BUILD_VERSION=1",
		"KBUILD_BUILD_USER=duplex", "KBUILD_BUILD_HOST=duplex",
	}
}

// make makes targets; each line of its output goes to the log, and to seen.
func (m *maker) make(ctx context.Context, seen func(line string), args ...string) error {
	return m.run(ctx, &lines{seen: seen}, "make", append(m.args(), args...)...)
}

// args are what each make is given. Kconfig notes in the configuration, which the
// kernel may carry, the versions of a Rust compiler and of pahole where they are
// installed; nothing is made with them, so it is not to find any.
func (m *maker) args() []string {
	prefix := "-ffile-prefix-map=" + m.tree + "/="
	return []string{"--no-print-directory", "-C", m.tree, "O=" + m.out, "ARCH=x86_64", "LOCALVERSION=",
		"KCFLAGS=" + prefix, "KAFLAGS=" + prefix, "RUSTC=none", "PAHOLE=none"}
}

// ask makes targets and returns what they print.
func (m *maker) ask(ctx context.Context, target string) (string, error) {
	var out bytes.Buffer
	err := m.run(ctx, &out, "make", append(m.args(), "-s", target)...)
	return strings.TrimSpace(lastLines(out.String(), 1)), err
}

// run runs a program; the error has what explains it. Run returns when all that it
// started has closed its output.
func (m *maker) run(ctx context.Context, out io.Writer, name string, args ...string) error {
	runtime.LockOSThread() // Pdeathsig fires when the thread that forked dies
	defer runtime.UnlockOSThread()
	tail := &tail{}
	cmd := group(exec.CommandContext(ctx, name, args...))
	cmd.Env, cmd.Dir = m.environ(), m.out
	cmd.Stdout = io.MultiWriter(m.log, tail, out)
	cmd.Stderr = io.MultiWriter(m.log, tail)
	cmd.ExtraFiles = []*os.File{m.hold}
	_, _ = fmt.Fprintf(m.log, "# %s %s\n", name, strings.Join(args, " "))
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s %s: %w\n%s\nThe whole log: %s", name, args[len(args)-1], err, reason(tail.String()), m.log.Name())
	}
	return nil
}

// group lets cmd and all it starts be killed together, when its context ends;
// cmd itself also when duplex dies in any way.
func group(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// lines calls seen for each whole line written to it.
type lines struct {
	seen func(line string)
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		if l.seen != nil {
			l.seen(string(l.rest[:i]))
		}
		l.rest = l.rest[i+1:]
	}
}

// tail keeps the end of what is written to it.
type tail struct{ buf []byte }

const tailSize = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if extra := len(t.buf) - tailSize; extra > tailSize {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.buf) }

// reason picks what explains a failure out of the end of make's output: other
// compilers still say what they made after the one that failed.
func reason(output string) string {
	var told []string
	for line := range strings.Lines(output) {
		l := strings.ToLower(line)
		for _, mark := range []string{"error", "***", "undefined reference", "no space left", "not found", "killed"} {
			if strings.Contains(l, mark) && !compiled(line) {
				told = append(told, strings.TrimRight(line, "\n"))
				break
			}
		}
	}
	if len(told) == 0 {
		return lastLines(output, 15)
	}
	return strings.Join(told[:min(len(told), 15)], "\n")
}

// lastLines returns the last n lines of s.
func lastLines(s string, n int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}

// compiled says whether make's line reports a file made: "  CC      mm/slab.o".
func compiled(line string) bool {
	word, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
	return ok && strings.HasPrefix(line, "  ") && strings.ToUpper(word) == word &&
		filepath.Base(strings.TrimSpace(rest)) != ""
}
