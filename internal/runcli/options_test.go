package runcli

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/workload"
)

// parseRun parses args as `duplex run` would and makes the spec against img.
func parseRun(t *testing.T, img imageConfig, args ...string) (workload.Spec, error) {
	t.Helper()
	a := &App{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}, Cmd: RunCommand}
	var o Options
	fs := a.Flags()
	o.Register(fs)
	if err := a.Parse(fs, args); err != nil {
		return workload.Spec{}, err
	}
	if err := o.Validate(a); err != nil {
		return workload.Spec{}, err
	}
	var cmd []string
	if fs.NArg() > 1 {
		cmd = fs.Args()[1:]
	}
	return o.spec(a, fs, img, cmd, workload.User{Home: "/root"})
}

func TestCommandFollowsDockersRules(t *testing.T) {
	img := imageConfig{Entrypoint: []string{"/entry", "-x"}, Cmd: []string{"default"}}
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"image's own", []string{"img"}, "/entry -x default"},
		{"command replaces cmd", []string{"img", "a", "-b"}, "/entry -x a -b"},
		{"entrypoint drops cmd", []string{"--entrypoint", "/e", "img"}, "/e"},
		{"entrypoint with command", []string{"--entrypoint=/e", "img", "a"}, "/e a"},
		{"empty entrypoint", []string{"--entrypoint=", "img", "a"}, "a"},
		{"payload flags pass through", []string{"img", "ls", "--memory"}, "/entry -x ls --memory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := parseRun(t, img, tt.args...)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(s.Argv, " "); got != tt.want {
				t.Errorf("argv %q, want %q", got, tt.want)
			}
		})
	}
}

func TestEnvironmentOrder(t *testing.T) {
	t.Setenv("FROM_CALLER", "yes")
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("# comment\nA=file\nB=file\nFROM_CALLER\nNOT_SET_ANYWHERE\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := parseRun(t, imageConfig{Cmd: []string{"x"}, Env: []string{"PATH=/img", "A=img"}},
		"-e", "B=flag", "--env-file", file, "-h", "box", "img")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"PATH=/img", "HOSTNAME=box", "HOME=/root", "A=file", "B=flag", "FROM_CALLER=yes"}
	if !slices.Equal(s.Env, want) {
		t.Errorf("env\n got %q\nwant %q", s.Env, want)
	}
}

func TestBadFlagsAreNamed(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(bad, []byte("two words=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ args, want string }{
		{"--volume=/a img x", "want HOST:GUEST"},
		{"-v /a:b img x", "not an absolute path"},
		{"-v /a:/b/..:ro img x", "the root itself"},
		{"-v /a:/b:rx img x", "neither ro nor rw"},
		{"-v /a:/b -v /c:/b/ img x", "/b is a volume already"},
		{"-v /a:/sys/fs img x", "/sys is the kernel's"},
		{"-v /nonexistent:/b img x", "does not exist"},
		{"-v /dev/null:/b img x", "neither a directory nor a regular file"},
		{"-p 80:80 img x", "unknown shorthand flag: 'p'"},
		{"--memory=1m img x", "less than the minimum of 6m"},
		{"--memory=lots img x", "not a size"},
		{"--cpus=-1 img x", "out of range"},
		{"--pids-limit=-2 img x", "--pids-limit=-2"},
		{"--timeout=-1s img x", "negative"},
		{"--workdir=rel img x", "not an absolute path"},
		{"--hostname=a/b img x", "character '/'"},
		{"--lab=maybe img x", "want auto, always or never"},
		{"--env-file=" + bad + " img x", "line 1"},
		{"--env-file=/nonexistent img x", "no such file"},
		{"img", "names no command"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			_, err := parseRun(t, imageConfig{}, strings.Fields(tt.args)...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	s, err := parseRun(t, imageConfig{}, "-m", "512m", "--cpus", "1.5", "--pids-limit=-1", "--read-only", "--timeout=3s", "img", "x")
	if err != nil {
		t.Fatal(err)
	}
	if s.Resources != (workload.Resources{MemoryBytes: 512 << 20, CPUs: 1.5}) || !s.ReadOnly || s.Timeout.Seconds() != 3 {
		t.Errorf("spec %+v", s)
	}
}
