package runcli

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/workload"
)

// Options are the flags that mean the same for both isolations; run and
// compare share them.
type Options struct {
	Env, EnvFiles []string
	Volumes       []string
	Workdir       string
	User          string
	Groups        []string
	Hostname      string
	Memory        string
	CPUs          float64
	Pids          int64
	ReadOnly      bool
	Timeout       time.Duration
	Entrypoint    string
	Kernel        string
	Name          string
	ID            string // "" makes one
	Lab           string
	NoJail        bool
	Initrd        string // with kernel a vmlinux: what the host prepared for the lab

	Interactive, TTY bool
}

func (o *Options) Register(fs *pflag.FlagSet) {
	cmdline.ListVar(fs, &o.Env, "env", "e", "set `KEY=VALUE`; KEY alone takes the caller's value")
	cmdline.ListVar(fs, &o.EnvFiles, "env-file", "", "read environment variables from `FILE`")
	cmdline.ListVar(fs, &o.Volumes, "volume", "v", "show a file or directory of the host inside: `HOST:GUEST[:ro]`")
	fs.StringVarP(&o.Workdir, "workdir", "w", "", "working `DIR` of the command")
	fs.StringVarP(&o.User, "user", "u", "", "run as `USER[:GROUP]`, by name or number")
	cmdline.ListVar(fs, &o.Groups, "group-add", "", "run with `GROUP` beside the user's own, by name or number")
	fs.StringVarP(&o.Hostname, "hostname", "h", "", "host `NAME` inside")
	fs.StringVarP(&o.Memory, "memory", "m", "", "memory limit, or the guest's memory: `SIZE` as 512m, 1g")
	fs.Float64Var(&o.CPUs, "cpus", 0, "number of `CPUS`, may be a fraction")
	fs.Int64Var(&o.Pids, "pids-limit", 0, "at most `N` processes; -1 for no limit")
	fs.BoolVar(&o.ReadOnly, "read-only", false, "mount the root file system read-only")
	fs.DurationVar(&o.Timeout, "timeout", 0, "kill the command after `DURATION` (as 10s), status 124")
	fs.StringVar(&o.Entrypoint, "entrypoint", "", "`COMMAND` in place of the image's entrypoint")
	fs.StringVar(&o.Kernel, "kernel", "", "guest kernel: a bzImage or vmlinux `FILE`, or a name of 'duplex kernel ls'")
	fs.StringVar(&o.Name, "name", "", "`NAME` of this run")
	fs.StringVar(&o.Lab, "lab", "auto", "run in the lab machine: `WHEN` is auto, always or never")
	fs.BoolVar(&o.NoJail, "no-jail", false, "leave a microVM's monitor unconfined: a guest that takes it over has all your rights")
	fs.StringVar(&o.Initrd, "initrd", "", "")
	_ = fs.MarkHidden("initrd")
}

// Validate checks what can be checked without the image.
func (o *Options) Validate(a *App) error {
	if !slices.Contains([]string{"auto", "always", "never"}, o.Lab) {
		return a.Usage("--lab=%s: want auto, always or never", o.Lab)
	}
	if o.CPUs < 0 || o.CPUs > 1024 {
		return a.Usage("--cpus=%v: out of range 0 to 1024", o.CPUs)
	}
	if o.Pids < -1 {
		return a.Usage("--pids-limit=%d: want a number, or -1 for none", o.Pids)
	}
	if o.Timeout < 0 {
		return a.Usage("--timeout=%v: negative", o.Timeout)
	}
	if o.Workdir != "" && !strings.HasPrefix(o.Workdir, "/") {
		return a.Usage("--workdir=%s: not an absolute path", o.Workdir)
	}
	if err := checkName("--name", o.Name); err != nil {
		return a.Usage("%v", err)
	}
	if err := checkName("--hostname", o.Hostname); err != nil {
		return a.Usage("%v", err)
	}
	if _, err := o.volumeList(); err != nil {
		return a.Usage("%v", err)
	}
	_, err := o.MemoryBytes(a)
	return err
}

// minMemory is the least memory either isolation accepts, docker's own bound.
const minMemory = 6 << 20

func (o *Options) MemoryBytes(a *App) (int64, error) {
	if o.Memory == "" {
		return 0, nil
	}
	n, err := units.RAMInBytes(o.Memory)
	if err != nil {
		return 0, a.Usage("--memory=%s: not a size", o.Memory)
	}
	if n < minMemory {
		return 0, a.Usage("--memory=%s: less than the minimum of 6m", o.Memory)
	}
	return n, nil
}

// checkName accepts an empty name or a host name label: 1 to 64 characters of
// [a-zA-Z0-9_.-] that does not start with a dot or dash.
func checkName(what, name string) error {
	if len(name) > 64 {
		return fmt.Errorf("%s: longer than 64 characters", what)
	}
	for i, c := range name {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || i > 0 && strings.ContainsRune("_.-", c)
		if !ok {
			return fmt.Errorf("%s=%q: character %q is not allowed there", what, name, c)
		}
	}
	return nil
}

// imageConfig is what an image says about running it.
type imageConfig struct {
	Entrypoint, Cmd, Env []string
	WorkingDir           string
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// spec makes the workload from the flags, the image's configuration and the
// command line, by docker's rules: --entrypoint replaces the image's entrypoint
// and drops its command; a command on the line replaces the image's command.
func (o *Options) spec(a *App, fs *pflag.FlagSet, img imageConfig, cmd []string, user workload.User) (workload.Spec, error) {
	entrypoint := img.Entrypoint
	if len(cmd) == 0 {
		cmd = img.Cmd
	}
	if fs.Changed("entrypoint") {
		if len(fs.Args()) <= 1 {
			cmd = nil
		}
		entrypoint = nil
		if o.Entrypoint != "" {
			entrypoint = []string{o.Entrypoint}
		}
	}
	argv := slices.Concat(entrypoint, cmd)
	if len(argv) == 0 {
		return workload.Spec{}, a.Usage("the image names no command: give one")
	}
	memory, err := o.MemoryBytes(a)
	if err != nil {
		return workload.Spec{}, err
	}
	id := FirstOf(o.ID, NewID())
	s := workload.Spec{
		ID: id, Name: o.Name, Argv: argv, User: user, Hostname: o.Hostname,
		Cwd:       FirstOf(o.Workdir, img.WorkingDir, "/"),
		Resources: workload.Resources{MemoryBytes: memory, CPUs: o.CPUs, Pids: max(o.Pids, 0)},
		ReadOnly:  o.ReadOnly, TTY: o.TTY, Interactive: o.Interactive, Timeout: o.Timeout,
	}
	if s.Hostname == "" {
		s.Hostname = id[:12]
	}
	if s.Volumes, err = o.HostVolumes(); err != nil {
		return workload.Spec{}, err
	}
	s.Env, err = o.environment(img.Env, s)
	return s, err
}

func (o *Options) environment(image []string, s workload.Spec) ([]string, error) {
	base := []string{defaultPath, "HOSTNAME=" + s.Hostname}
	if s.TTY {
		base = append(base, "TERM=xterm")
	}
	base = append(base, "HOME="+FirstOf(s.User.Home, "/"))
	vars, err := ReadEnvFiles(o.EnvFiles)
	if err != nil {
		return nil, err
	}
	return MergeEnv(MergeEnv(MergeEnv(base, image), vars), FromCaller(o.Env)), nil
}

// ReadEnvFiles is what files say, the last of them for each variable.
func ReadEnvFiles(files []string) (env []string, err error) {
	for _, f := range files {
		vars, err := readEnvFile(f)
		if err != nil {
			return nil, &workload.Error{Op: "--env-file " + f, Err: err}
		}
		env = MergeEnv(env, vars)
	}
	return env, nil
}

// readEnvFile reads docker's format: KEY=VALUE or KEY a line, # starts a comment
// line, nothing is unquoted.
func readEnvFile(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var vars []string
	sc := bufio.NewScanner(f)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimLeft(sc.Text(), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		key, _, _ := strings.Cut(line, "=")
		if key == "" || strings.ContainsAny(key, " \t") || strings.ContainsRune(line, 0) {
			return nil, fmt.Errorf("line %d: %q is not KEY=VALUE", n, line)
		}
		vars = append(vars, line)
	}
	return FromCaller(vars), sc.Err()
}

// FromCaller gives a KEY without value the caller's value, or drops it when the
// caller has none.
func FromCaller(vars []string) []string {
	var out []string
	for _, v := range vars {
		if strings.Contains(v, "=") {
			out = append(out, v)
		} else if value, ok := cmdline.LookupEnv(v); ok {
			out = append(out, v+"="+value)
		}
	}
	return out
}

// MergeEnv lays over on base; the last value of a key counts, in the place of
// its first.
func MergeEnv(base, over []string) []string {
	out := slices.Clone(base)
	at := make(map[string]int, len(out))
	for i, v := range out {
		key, _, _ := strings.Cut(v, "=")
		at[key] = i
	}
	for _, v := range over {
		key, _, _ := strings.Cut(v, "=")
		if i, ok := at[key]; ok {
			out[i] = v
			continue
		}
		at[key] = len(out)
		out = append(out, v)
	}
	return out
}

func FirstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// NewID makes a run id: 32 hexadecimal digits, unlikely to be all digits.
func NewID() string {
	var b [16]byte
	_, _ = unix.Getrandom(b[:], 0) // cannot fail for so few bytes
	id := hex.EncodeToString(b[:])
	if _, err := strconv.ParseUint(id[:12], 10, 64); err == nil {
		return NewID()
	}
	return id
}
