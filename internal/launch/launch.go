package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// DefaultPath is PATH when neither the image nor the user gives one.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Hostname returns the host name of spec: its own, or the first 12 characters
// of its id.
func Hostname(spec workload.Spec) string {
	if spec.Hostname != "" {
		return spec.Hostname
	}
	return spec.ID[:min(12, len(spec.ID))]
}

// Environ returns spec.Env with PATH, HOSTNAME, HOME and, with a terminal, TERM
// added where it lacks them. Of a key given twice the last value counts and
// keeps the first one's place.
func Environ(spec workload.Spec) []string {
	env := make([]string, 0, len(spec.Env)+4)
	at := make(map[string]int, len(spec.Env)+4)
	set := func(key, entry string, override bool) {
		i, ok := at[key]
		switch {
		case !ok:
			at[key] = len(env)
			env = append(env, entry)
		case override:
			env[i] = entry
		}
	}
	for _, e := range spec.Env {
		key, _, _ := strings.Cut(e, "=")
		set(key, e, true)
	}
	home := spec.User.Home
	if home == "" {
		home = "/"
	}
	set("PATH", "PATH="+DefaultPath, false)
	set("HOSTNAME", "HOSTNAME="+Hostname(spec), false)
	set("HOME", "HOME="+home, false)
	if spec.TTY {
		set("TERM", "TERM=xterm", false)
	}
	return env
}

// Prepare makes and enters the working directory and finds the command. It
// returns the path for execve(2); or the Exit to report when there is nothing
// to execute; or an error of duplex's own.
//
// Preconditions: the calling process is in the final root file system and still
// has root's permissions there. It changes the working directory of the whole
// process.
func Prepare(spec workload.Spec) (string, *workload.Exit, error) {
	if len(spec.Argv) == 0 {
		return "", nil, errors.New("find the command: empty argv")
	}
	if err := EnterCwd(spec.Cwd); err != nil {
		return "", nil, err
	}
	var found string
	var exit *workload.Exit
	err := asUser(spec.User, func() {
		found, exit = lookup(spec.Argv[0], searchPath(Environ(spec)))
	})
	if err != nil {
		return "", nil, fmt.Errorf("find the command: %w", err)
	}
	return found, exit, nil
}

// EnterCwd makes the absolute directory cwd ("" means "/") where it is missing
// and enters it. It refuses to end up outside the root file system, which is
// possible when cwd leads through a descriptor that a caller left open.
func EnterCwd(cwd string) error {
	if cwd == "" {
		cwd = "/"
	}
	if !path.IsAbs(cwd) {
		return fmt.Errorf("enter working directory %q: not an absolute path", cwd)
	}
	err := os.Chdir(cwd)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeDirs(cwd); err == nil {
			err = os.Chdir(cwd)
		}
	}
	if err != nil {
		return fmt.Errorf("enter working directory %q: %w", cwd, bare(err))
	}
	if err := InsideRoot(); err != nil {
		return fmt.Errorf("enter working directory %q: %w", cwd, err)
	}
	return nil
}

// InsideRoot is an error unless the working directory is below the root.
func InsideRoot() error {
	// The raw system call: a directory that is not below the root comes back
	// as "(unreachable)/..." (getcwd(2)), and os.Getwd would believe $PWD.
	var buf [unix.PathMax]byte
	n, err := unix.Getcwd(buf[:])
	if err != nil {
		return fmt.Errorf("getcwd: %w", err)
	}
	if n < 1 || buf[0] != '/' {
		return errors.New("it is outside the root file system")
	}
	return nil
}

// makeDirs makes dir and its parents with mode 0755, whatever the umask.
func makeDirs(dir string) error {
	old := unix.Umask(0o022)
	defer unix.Umask(old)
	return os.MkdirAll(dir, 0o755)
}

func searchPath(env []string) string {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			return v
		}
	}
	return ""
}

// lookup finds name as the calling thread's user.
func lookup(name, search string) (string, *workload.Exit) {
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return "", ExecFailed(name, err)
		}
		return name, nil
	}
	var denied error
	for dir := range strings.SplitSeq(search, ":") {
		if name == "" || !path.IsAbs(dir) {
			continue
		}
		p := path.Join(dir, name)
		err := executable(p)
		if err == nil {
			return p, nil
		}
		if denied == nil && errors.Is(err, unix.EACCES) {
			denied = err
		}
	}
	if denied != nil {
		return "", ExecFailed(name, denied)
	}
	return "", &workload.Exit{
		Code:    workload.StatusNotFound,
		Message: fmt.Sprintf("exec: %q: executable file not found in $PATH", name),
	}
}

// executable reports whether the calling thread's user may execute file.
func executable(file string) error {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	// Faccessat2 and not Access: the latter checks the real user.
	if err := unix.Faccessat2(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS); err != unix.ENOSYS {
		return err
	}
	if st.Mode&0o111 == 0 { // before Linux 5.8: execve has the last word
		return unix.EACCES
	}
	return nil
}

// ExecFailed turns the error of looking name up or of executing it into the
// Exit that docker reports: 127 when there is no such file, else 126.
func ExecFailed(name string, err error) *workload.Exit {
	code := workload.StatusNotExecutable
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		code = workload.StatusNotFound
	}
	return &workload.Exit{Code: code, Message: fmt.Sprintf("exec: %q: %v", name, bare(err))}
}

// bare strips the *fs.PathError around an errno: callers name the path.
func bare(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
