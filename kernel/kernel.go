package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/workload"
)

// Kernel is a guest kernel on disk.
type Kernel struct {
	// Name is what --kernel takes: the name in `kernel ls`, or the path given.
	Name string `json:"name"`
	// Release is what `uname -r` says, "6.1.0-56-cloud-amd64".
	Release string `json:"release"`
	// Package is the distribution's package and version; empty for a file. Of a
	// kernel of Built it is the source package.
	Package string `json:"package,omitempty"`
	// Built says that package kernel/build made it.
	Built bool `json:"built,omitempty"`
	// Image is the path of the bzImage or vmlinux, Bytes its size.
	Image string `json:"image"`
	Bytes int64  `json:"bytes"`
	// Fetched is when it was fetched or built, or when a file was last changed.
	Fetched time.Time `json:"fetched"`
	// ModulesDir is the directory with modules.builtin and kernel/; empty when
	// the kernel has none.
	ModulesDir string `json:"modules_dir,omitempty"`
	// Config is the path of the build configuration; empty when unknown.
	Config string `json:"config,omitempty"`
}

// List returns the fetched kernels, newest first, then those of Built, which are
// only used when they are named: the lab and the containers compared there need modules
// that they lack. Errors are *workload.Error.
func List() ([]*Kernel, error) {
	root, err := hostdir.Cache("kernels", "x")
	if err != nil {
		return nil, err
	}
	root = filepath.Dir(root)
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list kernels: %w", err)
	}
	var out []*Kernel
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !e.IsDir() {
			continue
		}
		dir := filepath.Join(root, e.Name())
		k, err := load(dir)
		if err != nil {
			return nil, &workload.Error{Op: "list kernels", Err: err, Remedy: "remove the broken " + dir}
		}
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b *Kernel) int {
		if a.Built != b.Built {
			if b.Built {
				return -1
			}
			return 1
		}
		return compareVersions(b.Name, a.Name)
	})
	return out, nil
}

// Names of what a kernel's directory holds. A built kernel has no modules.
const (
	metaName    = "kernel.json"
	imageName   = "vmlinuz"
	builtName   = "vmlinux" // the image of a built kernel
	configName  = "config"
	modulesName = "modules"
)

// meta is what is written down about a kernel.
type meta struct {
	Release string `json:"release"`
	Package string `json:"package"`
	Built   bool   `json:"built,omitempty"`
}

// load reads the kernel in the cache directory dir.
func load(dir string) (*Kernel, error) {
	data, err := os.ReadFile(filepath.Join(dir, metaName))
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", filepath.Base(dir), err)
	}
	var m meta
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("kernel %s: %s: %w", filepath.Base(dir), metaName, err)
	}
	image := imageName
	if m.Built {
		image = builtName
	}
	info, err := os.Stat(filepath.Join(dir, image))
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", filepath.Base(dir), err)
	}
	k := &Kernel{
		Bytes:   info.Size(),
		Fetched: info.ModTime(),
		Name:    filepath.Base(dir),
		Release: m.Release,
		Package: m.Package,
		Built:   m.Built,
		Image:   filepath.Join(dir, image),
		Config:  filepath.Join(dir, configName),
	}
	if !m.Built {
		k.ModulesDir = filepath.Join(dir, modulesName)
	}
	return k, nil
}

// Flavour is the first word of a built kernel's name, "minimal"; of another kernel "".
func (k *Kernel) Flavour() string {
	if !k.Built {
		return ""
	}
	flavour, _, _ := strings.Cut(k.Name, "-")
	return flavour
}

// Newest returns the kernel of that flavour that was built last, or nil.
func Newest(list []*Kernel, flavour string) *Kernel {
	var newest *Kernel
	for _, k := range list {
		if flavour != "" && k.Flavour() == flavour && (newest == nil || k.Fetched.After(newest.Fetched)) {
			newest = k
		}
	}
	return newest
}

// Find returns the kernel a user means: the newest fetched one for "", the file
// for a path (anything with a slash, or a file that exists), the one built last for
// a flavour, else the kernel whose name is, or uniquely starts with, name. Errors
// are *workload.Error.
func Find(name string) (*Kernel, error) {
	if strings.ContainsRune(name, '/') { // whatever is in the cache
		return fromFile(name)
	}
	all, err := List()
	if err != nil {
		return nil, err
	}
	if name == "" {
		if len(all) == 0 || all[0].Built {
			return nil, &workload.Error{Op: "find a guest kernel", Err: errors.New("none was fetched yet"),
				Remedy: "'duplex kernel fetch' gets the distribution's; --kernel FILE names your own"}
		}
		return all[0], nil
	}
	if k := Newest(all, name); k != nil {
		return k, nil
	}
	var match []*Kernel
	for _, k := range all {
		if k.Name == name {
			return k, nil
		}
		if strings.HasPrefix(k.Name, name) {
			match = append(match, k)
		}
	}
	if len(match) == 1 {
		return match[0], nil
	}
	if info, err := os.Stat(name); err == nil && !info.IsDir() {
		return fromFile(name)
	}
	err = errors.New("no such kernel")
	if len(match) > 1 {
		err = fmt.Errorf("%d kernels start with this", len(match))
	}
	return nil, &workload.Error{Op: "find kernel " + name, Err: err,
		Remedy: "'duplex kernel ls' lists them; a path to a bzImage or vmlinux works too"}
}

// fromFile makes a Kernel of a file and of what lies beside it: config-RELEASE
// (as in /boot) or .config (as in a build tree), and ../lib/modules/RELEASE (an
// unpacked package) or the host's /lib/modules/RELEASE.
func fromFile(path string) (*Kernel, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, &workload.Error{Op: "open kernel", Err: err, Remedy: remedyImage}
	}
	defer func() { _ = f.Close() }()
	id, err := identify(f)
	if err != nil {
		return nil, err
	}
	k := &Kernel{Name: path, Release: id.release(), Image: path, Bytes: id.size, Fetched: id.time}
	if k.Release == "" {
		return k, nil
	}
	dir := filepath.Dir(path)
	for _, c := range []string{"config-" + k.Release, ".config"} {
		if c = filepath.Join(dir, c); isFile(c) {
			k.Config = c
			break
		}
	}
	for _, m := range []string{
		filepath.Join(dir, "..", "lib", "modules", k.Release),
		filepath.Join("/lib/modules", k.Release),
	} {
		if isFile(filepath.Join(m, "modules.builtin")) {
			k.ModulesDir = m
			break
		}
	}
	return k, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// compareVersions orders version strings: runs of digits by value, the rest by
// byte, so that 6.1.0-56 comes after 6.1.0-9.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		na, nb := digits(a), digits(b)
		if na > 0 && nb > 0 {
			da, db := strings.TrimLeft(a[:na], "0"), strings.TrimLeft(b[:nb], "0")
			if len(da) != len(db) {
				return len(da) - len(db)
			}
			if c := strings.Compare(da, db); c != 0 {
				return c
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}
