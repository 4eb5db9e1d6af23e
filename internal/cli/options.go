package cli

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/internal/workload"
)

// runOptions are the flags that mean the same for both isolations; run and
// compare share them.
type runOptions struct {
	env, envFiles []string
	volumes       []string
	workdir       string
	user          string
	groups        []string
	hostname      string
	memory        string
	cpus          float64
	pids          int64
	readOnly      bool
	timeout       time.Duration
	entrypoint    string
	kernel        string
	name          string
	id            string // "" makes one
	lab           string
	noJail        bool
	initrd        string // with kernel a vmlinux: what the host prepared for the lab

	interactive, tty bool
}

func (o *runOptions) register(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&o.env, "env", "e", nil, "set `KEY=VALUE`; KEY alone takes the caller's value")
	fs.StringArrayVar(&o.envFiles, "env-file", nil, "read environment variables from `FILE`")
	fs.StringArrayVarP(&o.volumes, "volume", "v", nil, "show a file or directory of the host inside: `HOST:GUEST[:ro]`")
	fs.StringVarP(&o.workdir, "workdir", "w", "", "working `DIR` of the command")
	fs.StringVarP(&o.user, "user", "u", "", "run as `USER[:GROUP]`, by name or number")
	fs.StringArrayVar(&o.groups, "group-add", nil, "run with `GROUP` beside the user's own, by name or number")
	fs.StringVarP(&o.hostname, "hostname", "h", "", "host `NAME` inside")
	fs.StringVarP(&o.memory, "memory", "m", "", "memory limit, or the guest's memory: `SIZE` as 512m, 1g")
	fs.Float64Var(&o.cpus, "cpus", 0, "number of `CPUS`, may be a fraction")
	fs.Int64Var(&o.pids, "pids-limit", 0, "at most `N` processes; -1 for no limit")
	fs.BoolVar(&o.readOnly, "read-only", false, "mount the root file system read-only")
	fs.DurationVar(&o.timeout, "timeout", 0, "kill the command after `DURATION` (as 10s), status 124")
	fs.StringVar(&o.entrypoint, "entrypoint", "", "`COMMAND` in place of the image's entrypoint")
	fs.StringVar(&o.kernel, "kernel", "", "guest kernel: a bzImage or vmlinux `FILE`, or a name of 'duplex kernel ls'")
	fs.StringVar(&o.name, "name", "", "`NAME` of this run")
	fs.StringVar(&o.lab, "lab", "auto", "run in the lab machine: `WHEN` is auto, always or never")
	fs.BoolVar(&o.noJail, "no-jail", false, "leave a microVM's monitor unconfined: a guest that takes it over has all your rights")
	fs.StringVar(&o.initrd, "initrd", "", "")
	_ = fs.MarkHidden("initrd")
}

// validate checks what can be checked without the image.
func (o *runOptions) validate(a *app) error {
	if !slices.Contains([]string{"auto", "always", "never"}, o.lab) {
		return a.usage("--lab=%s: want auto, always or never", o.lab)
	}
	if o.cpus < 0 || o.cpus > 1024 {
		return a.usage("--cpus=%v: out of range 0 to 1024", o.cpus)
	}
	if o.pids < -1 {
		return a.usage("--pids-limit=%d: want a number, or -1 for none", o.pids)
	}
	if o.timeout < 0 {
		return a.usage("--timeout=%v: negative", o.timeout)
	}
	if o.workdir != "" && !strings.HasPrefix(o.workdir, "/") {
		return a.usage("--workdir=%s: not an absolute path", o.workdir)
	}
	if err := checkName("--name", o.name); err != nil {
		return a.usage("%v", err)
	}
	if err := checkName("--hostname", o.hostname); err != nil {
		return a.usage("%v", err)
	}
	if _, err := o.volumeList(); err != nil {
		return a.usage("%v", err)
	}
	_, err := o.memoryBytes(a)
	return err
}

// minMemory is the least memory either isolation accepts, docker's own bound.
const minMemory = 6 << 20

func (o *runOptions) memoryBytes(a *app) (int64, error) {
	if o.memory == "" {
		return 0, nil
	}
	n, err := units.RAMInBytes(o.memory)
	if err != nil {
		return 0, a.usage("--memory=%s: not a size", o.memory)
	}
	if n < minMemory {
		return 0, a.usage("--memory=%s: less than the minimum of 6m", o.memory)
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
func (o *runOptions) spec(a *app, fs *pflag.FlagSet, img imageConfig, cmd []string, user workload.User) (workload.Spec, error) {
	entrypoint := img.Entrypoint
	if len(cmd) == 0 {
		cmd = img.Cmd
	}
	if fs.Changed("entrypoint") {
		if len(fs.Args()) <= 1 {
			cmd = nil
		}
		entrypoint = nil
		if o.entrypoint != "" {
			entrypoint = []string{o.entrypoint}
		}
	}
	argv := slices.Concat(entrypoint, cmd)
	if len(argv) == 0 {
		return workload.Spec{}, a.usage("the image names no command: give one")
	}
	memory, err := o.memoryBytes(a)
	if err != nil {
		return workload.Spec{}, err
	}
	id := firstOf(o.id, newID())
	s := workload.Spec{
		ID: id, Name: o.name, Argv: argv, User: user, Hostname: o.hostname,
		Cwd:       firstOf(o.workdir, img.WorkingDir, "/"),
		Resources: workload.Resources{MemoryBytes: memory, CPUs: o.cpus, Pids: max(o.pids, 0)},
		ReadOnly:  o.readOnly, TTY: o.tty, Interactive: o.interactive, Timeout: o.timeout,
	}
	if s.Hostname == "" {
		s.Hostname = id[:12]
	}
	if s.Volumes, err = o.hostVolumes(); err != nil {
		return workload.Spec{}, err
	}
	s.Env, err = o.environment(img.Env, s)
	return s, err
}

func (o *runOptions) environment(image []string, s workload.Spec) ([]string, error) {
	base := []string{defaultPath, "HOSTNAME=" + s.Hostname}
	if s.TTY {
		base = append(base, "TERM=xterm")
	}
	base = append(base, "HOME="+firstOf(s.User.Home, "/"))
	vars, err := readEnvFiles(o.envFiles)
	if err != nil {
		return nil, err
	}
	return mergeEnv(mergeEnv(mergeEnv(base, image), vars), fromCaller(o.env)), nil
}

// readEnvFiles is what files say, the last of them for each variable.
func readEnvFiles(files []string) (env []string, err error) {
	for _, f := range files {
		vars, err := readEnvFile(f)
		if err != nil {
			return nil, &workload.Error{Op: "--env-file " + f, Err: err}
		}
		env = mergeEnv(env, vars)
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
	return fromCaller(vars), sc.Err()
}

// fromCaller gives a KEY without value the caller's value, or drops it when the
// caller has none.
func fromCaller(vars []string) []string {
	var out []string
	for _, v := range vars {
		if strings.Contains(v, "=") {
			out = append(out, v)
		} else if value, ok := os.LookupEnv(v); ok {
			out = append(out, v+"="+value)
		}
	}
	return out
}

// mergeEnv lays over on base; the last value of a key counts, in the place of
// its first.
func mergeEnv(base, over []string) []string {
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

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// newID makes a run id: 32 hexadecimal digits, unlikely to be all digits.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	id := hex.EncodeToString(b[:])
	if _, err := strconv.ParseUint(id[:12], 10, 64); err == nil {
		return newID()
	}
	return id
}
