package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// own is the lab's root file system in these tests.
var own = fstest.MapFS{
	"bin/true":   {Mode: 0o755},
	"etc/passwd": {},
}

func planned(t *testing.T, o Options) (*cargo, error) {
	t.Helper()
	if err := o.validate(); err != nil {
		t.Fatal(err)
	}
	return o.plan(t.Context(), own)
}

func TestPlan(t *testing.T) {
	dir := t.TempDir()
	bin, sub := filepath.Join(dir, "bin"), filepath.Join(dir, "sub")
	file, cmd := filepath.Join(dir, "file"), filepath.Join(bin, "hostcmd")
	for _, err := range []error{
		os.Mkdir(bin, 0o755), os.Mkdir(sub, 0o755),
		os.WriteFile(file, []byte("x"), 0o644),
		os.WriteFile(cmd, []byte("x"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":/usr/bin")
	for name, tt := range map[string]struct {
		argv, carry       []string
		only              bool
		files, dirs, back []string
		path              []string
	}{
		"the lab's command":     {argv: []string{"true"}},
		"the lab's, by path":    {argv: []string{"/bin/true"}},
		"the host's command":    {argv: []string{"hostcmd"}, files: []string{cmd}, back: []string{cmd}, path: []string{bin}},
		"by relative path":      {argv: []string{"./bin/hostcmd"}, files: []string{cmd}, back: []string{cmd}},
		"missing":               {argv: []string{"./missing"}},
		"a file":                {argv: []string{"true", "file"}, files: []string{file}, back: []string{file}},
		"a file twice":          {argv: []string{"true", "file", file}, files: []string{file}, back: []string{file}},
		"a file in a flag":      {argv: []string{"true", "--in=file"}, files: []string{file}, back: []string{file}},
		"a directory":           {argv: []string{"true", "sub/"}, dirs: []string{sub}, back: []string{sub}},
		"about to be written":   {argv: []string{"true", "--out=sub/new"}, back: []string{filepath.Join(sub, "new")}},
		"a word":                {argv: []string{"true", "word", "-x", "", "a=b"}},
		"the lab's own file":    {argv: []string{"true", "/etc/passwd"}},
		"the kernel's":          {argv: []string{"true", "/proc/self/maps", "/dev", "/", "/tmp", "/sys"}},
		"asked for":             {argv: []string{"true"}, carry: []string{"sub", file}, files: []string{file}, dirs: []string{sub}, back: []string{sub, file}},
		"within a directory":    {argv: []string{"true", "bin/hostcmd"}, carry: []string{"bin"}, dirs: []string{bin}, back: []string{bin, cmd}},
		"only what is asked":    {argv: []string{"true", file}, only: true, carry: []string{sub}, dirs: []string{sub}, back: []string{sub}},
		"no such file, no path": {argv: []string{"true", "/no/such/dir/file"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := planned(t, Options{Argv: tt.argv, Carry: tt.carry, CarryOnly: tt.only, Cwd: dir})
			if err != nil {
				t.Fatal(err)
			}
			for _, list := range []struct {
				what      string
				got, want []string
			}{
				{"files", c.files, tt.files}, {"dirs", c.dirs, tt.dirs},
				{"back", c.back, append(tt.back, dir)}, {"path", c.path, tt.path}, {"libs", c.libs, nil},
			} {
				if !slices.Equal(list.got, list.want) {
					t.Errorf("%s: %q, want %q", list.what, list.got, list.want)
				}
			}
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	dir := t.TempDir()
	sparse := filepath.Join(dir, "sparse")
	if err := errors.Join(os.WriteFile(sparse, nil, 0o600), os.Truncate(sparse, maxNamedBytes+1)); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{
		"not there":    {Argv: []string{"true"}, Carry: []string{filepath.Join(dir, "missing")}},
		"everything":   {Argv: []string{"true"}, Carry: []string{"/"}},
		"the kernel's": {Argv: []string{"true"}, Carry: []string{"/proc/self"}},
		"a device":     {Argv: []string{"true"}, Carry: []string{"/dev/null"}},
		"too much":     {Argv: []string{"true", dir}},
	} {
		o.Cwd = "/"
		if c, err := planned(t, o); err == nil {
			t.Errorf("%s: accepted as %+v", name, c)
		}
	}
	c, err := planned(t, Options{Argv: []string{"true"}, Carry: []string{dir}, Cwd: "/"})
	if err != nil || !slices.Equal(c.dirs, []string{dir}) || slices.Contains(c.back, "/") {
		t.Errorf("asked for by name: %+v, %v", c, err)
	}
}

// A dynamically linked program brings its interpreter and libraries, a script
// the interpreter's too.
func TestNeeds(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#! /bin/sh -e\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := planned(t, Options{Argv: []string{script}, Cwd: "/"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/bin/sh", "/ld-linux-x86-64.so.2", "/libc.so.6"} {
		if !slices.ContainsFunc(c.libs, func(l string) bool { return strings.HasSuffix(l, want) }) {
			t.Errorf("no %s in %q", want, c.libs)
		}
	}

	sh, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, bytes.ReplaceAll(sh, []byte("libc.so.6"), []byte("libC.so.6")), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = planned(t, Options{Argv: []string{broken}, Cwd: "/"})
	if err == nil || !strings.Contains(err.Error(), "libC.so.6") {
		t.Errorf("missing library: %v", err)
	}
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, append([]byte("\x7fELF\x02\x01\x01"), bytes.Repeat([]byte{0xff}, 100)...), 0o755); err != nil {
		t.Fatal(err)
	}
	if c, err := planned(t, Options{Argv: []string{garbage}, Cwd: "/"}); err != nil || len(c.libs) != 0 {
		t.Errorf("a file that is no program: %+v, %v", c, err)
	}
}

func TestPacks(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DUPLEX_CACHE", filepath.Join(dir, "cache"))
	c := new(cargo)
	for i := range 12 {
		p := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(p, make([]byte, (i%2)*(ownPackAbove+1)), 0o644); err != nil {
			t.Fatal(err)
		}
		c.files = append(c.files, p)
	}
	packs, disks, err := c.packs(t.Context())
	if err != nil || len(packs) != 7 || len(disks) != 7 || len(packs[6].Items) != 6 {
		t.Fatalf("%+v, %+v, %v", packs, disks, err)
	}
	again, same, err := c.packs(t.Context())
	if err != nil || len(again) != 7 || !slices.Equal(same, disks) {
		t.Errorf("the cache was not used: %+v, %v", same, err)
	}
	if err := os.WriteFile(c.files[1], []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, now, err := c.packs(t.Context()); err != nil || slices.Equal(now, disks) {
		t.Errorf("a changed file was taken from the cache (%v)", err)
	}
	for i := range maxPacks + 1 {
		d := filepath.Join(dir, fmt.Sprintf("d%d", i))
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		c.dirs = append(c.dirs, d)
	}
	if _, _, err := c.packs(t.Context()); err == nil {
		t.Error("more disks than the machine has room for")
	}
}

func TestEnviron(t *testing.T) {
	t.Setenv("DUPLEX_CACHE", "/c")
	t.Setenv("DUPLEX_RUNTIME", "/r")
	t.Setenv("TERM", "vt100")
	t.Setenv("SECRET", "x")
	env := Options{TTY: true, Env: []string{"A=b"}}.environ([]string{"/p"})
	for _, want := range []string{"DUPLEX_CACHE=/c", "TERM=vt100", "A=b", InLab + "=1"} {
		if !slices.Contains(env, want) {
			t.Errorf("no %s in %q", want, env)
		}
	}
	if slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "SECRET") || strings.HasPrefix(e, "DUPLEX_RUNTIME") }) || !strings.HasSuffix(env[0], ":/p") {
		t.Errorf("%q", env)
	}
}

// Every value that reaches QEMU's command line is one argument, whatever it holds.
func TestArguments(t *testing.T) {
	c := config{kernel: "/k", initrd: "/i", append: "a b", memory: 1 << 30, cpus: 3,
		disks: []disk{{serial: "s", path: "/with,comma"}}}
	args := c.arguments()
	if !slices.Contains(args, "if=none,id=s,format=raw,readonly=on,file=/with,,comma") {
		t.Errorf("a comma ends QEMU's option: %q", args)
	}
	if i := slices.Index(args, "-smp"); i < 0 || args[i+1] != "3" {
		t.Errorf("%q", args)
	}
	c.deterministic = true
	if args = c.arguments(); !slices.Contains(args, "shift=1,sleep=off") || args[slices.Index(args, "-smp")+1] != "1" {
		t.Errorf("%q", args)
	}
}
