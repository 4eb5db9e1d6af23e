package launch

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

func TestEnviron(t *testing.T) {
	tests := []struct {
		name string
		spec workload.Spec
		want []string
	}{
		{"empty", workload.Spec{ID: "0123456789abcdef"},
			[]string{"PATH=" + DefaultPath, "HOSTNAME=0123456789ab", "HOME=/"}},
		{"own values stay", workload.Spec{ID: "short", Hostname: "h", TTY: true,
			Env:  []string{"HOME=/x", "PATH=/p", "TERM=dumb", "HOSTNAME="},
			User: workload.User{Home: "/home/u"}},
			[]string{"HOME=/x", "PATH=/p", "TERM=dumb", "HOSTNAME="}},
		{"last of two counts", workload.Spec{Hostname: "h", Env: []string{"A=1", "PATH=", "A=2"},
			User: workload.User{Home: "/home/u"}, TTY: true},
			[]string{"A=2", "PATH=", "HOSTNAME=h", "HOME=/home/u", "TERM=xterm"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Environ(tt.spec); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Each row is a command as docker would be given it, with docker's status.
func TestPrepareFindsCommand(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	locked := filepath.Join(dir, "locked")
	for _, d := range []string{bin, locked, filepath.Join(bin, "adir")} {
		must(t, os.Mkdir(d, 0o755))
	}
	must(t, os.WriteFile(filepath.Join(bin, "ok"), nil, 0o755))
	must(t, os.WriteFile(filepath.Join(bin, "plain"), nil, 0o644))
	must(t, os.WriteFile(filepath.Join(locked, "ok"), nil, 0o755))
	must(t, os.WriteFile(filepath.Join(locked, "only"), nil, 0o644))
	env := []string{"PATH=:relative:" + locked + ":" + bin}

	tests := []struct {
		argv0 string
		path  string
		code  int
		msg   string
	}{
		{"ok", filepath.Join(locked, "ok"), 0, ""},
		{"only", "", 126, "permission denied"},
		{"adir", "", 127, `exec: "adir": executable file not found in $PATH`},
		{"nope", "", 127, `exec: "nope": executable file not found in $PATH`},
		{"", "", 127, `exec: "": executable file not found in $PATH`},
		{"./ok", "./ok", 0, ""},
		{"./nope", "", 127, `exec: "./nope": no such file or directory`},
		{"./ok/below", "", 127, "not a directory"},
		{"./plain", "", 126, `exec: "./plain": permission denied`},
		{"./adir", "", 126, `exec: "./adir": is a directory`},
		{bin + "/ok", bin + "/ok", 0, ""},
		{bin + "/ok\x00", "", 126, "invalid argument"},
	}
	t.Chdir(dir)
	for _, tt := range tests {
		t.Run(tt.argv0, func(t *testing.T) {
			got, exit, err := Prepare(workload.Spec{Argv: []string{tt.argv0}, Env: env, Cwd: bin,
				User: workload.User{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}})
			must(t, err)
			if got != tt.path {
				t.Errorf("path %q, want %q", got, tt.path)
			}
			if (exit != nil) != (tt.code != 0) {
				t.Fatalf("exit %+v, want code %d", exit, tt.code)
			}
			if exit != nil && (exit.Status() != tt.code || !strings.Contains(exit.Message, tt.msg)) {
				t.Errorf("exit %+v, want %d %q", exit, tt.code, tt.msg)
			}
		})
	}
}

// The search has the workload user's permissions, also when root does it.
func TestPrepareSearchesAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: the caller's own permissions are the user's; covered by the run as root")
		return
	}
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	closed, open := filepath.Join(dir, "closed"), filepath.Join(dir, "open")
	must(t, os.Mkdir(closed, 0o700))
	must(t, os.Mkdir(open, 0o755))
	must(t, os.WriteFile(filepath.Join(closed, "x"), nil, 0o755))
	must(t, os.WriteFile(filepath.Join(open, "x"), nil, 0o750))
	must(t, os.Chown(filepath.Join(open, "x"), 0, 4242))
	spec := workload.Spec{Argv: []string{"x"}, Cwd: closed, Env: []string{"PATH=" + closed + ":" + open}}
	t.Chdir(dir)

	for _, tt := range []struct {
		user workload.User
		path string
		code int
	}{
		{workload.User{}, filepath.Join(closed, "x"), 0},
		{workload.User{UID: 4242, GID: 4242}, filepath.Join(open, "x"), 0},
		{workload.User{UID: 4242, GID: 1, Groups: []uint32{4242}}, filepath.Join(open, "x"), 0},
		{workload.User{UID: 4242, GID: 1}, "", 126},
	} {
		spec.User = tt.user
		path, exit, err := Prepare(spec)
		must(t, err)
		if path != tt.path || (exit != nil) != (tt.code != 0) || exit != nil && exit.Code != tt.code {
			t.Errorf("%+v: %q %+v, want %q %d", tt.user, path, exit, tt.path, tt.code)
		}
	}
	if uid, err := unix.SetfsuidRetUid(-1); err != nil || uid != 0 {
		t.Errorf("fsuid is %d after the search (%v), want 0", uid, err)
	}
}

func TestEnterCwd(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
	t.Chdir(dir)
	defer unix.Umask(unix.Umask(0o077))
	want := filepath.Join(dir, "a", "b")
	must(t, EnterCwd(want))
	got, err := os.Getwd()
	must(t, err)
	info, err := os.Stat(filepath.Dir(want))
	must(t, err)
	if got != want || info.Mode().Perm() != 0o755 {
		t.Errorf("in %s with mode %v, want %s 0755", got, info.Mode().Perm(), want)
	}
	for _, bad := range []string{"relative", filepath.Join(dir, "file"), filepath.Join(dir, "file", "below")} {
		if err := EnterCwd(bad); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

func TestExecFailed(t *testing.T) {
	for err, want := range map[error]int{
		unix.ENOENT: 127, unix.ENOTDIR: 127, unix.EACCES: 126, unix.ENOEXEC: 126, unix.ELOOP: 126,
	} {
		if got := ExecFailed("x", err).Status(); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A mount point is made inside the root, whatever its links say.
func TestMountPoint(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "root")
	if err := os.MkdirAll(filepath.Join(dir, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"abs": "/real", "up": "../../real", "out": top, "loop": "loop", "none": "/nowhere/such"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	for _, tt := range []struct {
		path string
		dir  bool
		want string // where it is, below dir; or the error after "!"
	}{
		{"/a/b/c", true, "a/b/c"},
		{"/a/b/file", false, "a/b/file"},
		{"/abs/x", true, "real/x"},
		{"/up/y", true, "real/y"},
		{"/out/z", true, "!leads nowhere"},
		{"/loop/z", true, "!too many levels"},
		{"/none", true, "!leads nowhere"},
		{"/none", false, "!leads nowhere"},
		{"/a/b/file", true, "!cannot be mounted on a file"},
		{"/a/b/file/x", true, "!not a directory"},
		{"/a", false, "!cannot be mounted on a directory"},
		{"/", true, "!the root itself"},
	} {
		at, err := MountPoint(root, tt.path, tt.dir)
		if want, bad := strings.CutPrefix(tt.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v, want %q", tt.path, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.path, err)
			continue
		}
		if got, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(at.Fd()))); err != nil || got != filepath.Join(dir, tt.want) {
			t.Errorf("%s: %s, %v; want %s", tt.path, got, err, tt.want)
		}
		_ = at.Close()
	}
	if entries, err := os.ReadDir(top); err != nil || len(entries) != 1 {
		t.Errorf("beside the root there is %v, %v", entries, err)
	}
}
