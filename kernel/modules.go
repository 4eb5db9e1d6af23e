package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/duplex-run/duplex/internal/workload"
)

// Modules returns the modules that names need, dependencies first: loading them
// one by one in this order works. A name that is built into the kernel is left
// out. Names that are neither are all listed in one *MissingError, inside a
// *workload.Error. A kernel without a module directory is taken to have
// everything built in.
func (k *Kernel) Modules(names ...string) ([]Module, error) {
	if k.ModulesDir == "" {
		return nil, nil
	}
	r, err := newResolver(k.ModulesDir)
	if err != nil {
		return nil, fmt.Errorf("modules of kernel %s: %w", k.Name, err)
	}
	for _, name := range names {
		if err := r.need(canonical(name)); err != nil {
			return nil, fmt.Errorf("modules of kernel %s: %w", k.Name, err)
		}
	}
	if len(r.missing) > 0 {
		return nil, &workload.Error{
			Op:     "modules of kernel " + k.Name,
			Err:    &MissingError{Dir: k.ModulesDir, Modules: r.missing},
			Remedy: "'duplex kernel inspect' says what a kernel lacks; 'duplex kernel fetch' gets one that has everything",
		}
	}
	return r.order, nil
}

// MissingError names the modules that a kernel has neither built in nor in its
// module directory.
type MissingError struct {
	Dir     string
	Modules []string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("neither built in nor in %s: %s", e.Dir, strings.Join(e.Modules, ", "))
}

// ModulesID identifies the content of the module directory, "" for none: its path,
// and size and time of the lists that every installation of modules rewrites.
func (k *Kernel) ModulesID() (string, error) {
	if k.ModulesDir == "" {
		return "", nil
	}
	id := k.ModulesDir
	for _, name := range []string{"modules.builtin", "modules.order"} {
		info, err := os.Stat(filepath.Join(k.ModulesDir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("modules of kernel %s: %w", k.Name, err)
		}
		id += fmt.Sprintf("\n%s %d %d", name, info.Size(), info.ModTime().UnixNano())
	}
	return id, nil
}

// resolver walks dependencies depth first.
type resolver struct {
	paths   map[string]string // of every module file, by name
	builtin map[string]bool   // modules and aliases that are part of the kernel
	aliases map[string][]string
	seen    map[string]bool
	order   []Module
	missing []string
}

func newResolver(dir string) (*resolver, error) {
	r := &resolver{paths: map[string]string{}, builtin: map[string]bool{}, seen: map[string]bool{}}
	err := filepath.WalkDir(filepath.Join(dir, "kernel"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, ok := moduleName(path); ok && d.Type().IsRegular() {
			r.paths[name] = path
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	list, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(list)) {
		if name, ok := moduleName(strings.TrimSpace(line)); ok {
			r.builtin[name] = true
		}
	}
	// Older kernels (before 5.2) lack this file; then only names are known.
	info, err := os.ReadFile(filepath.Join(dir, "modules.builtin.modinfo"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, alias := range builtinAliases(info) {
		r.builtin[alias] = true
	}
	return r, nil
}

// builtinAliases reads modules.builtin.modinfo: strings "module.key=value",
// each ended by NUL.
func builtinAliases(data []byte) []string {
	var out []string
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		key, value, ok := strings.Cut(string(entry), "=")
		if ok && strings.HasSuffix(key, ".alias") {
			out = append(out, canonical(value))
		}
	}
	return out
}

// moduleName returns the name of the module in the file path.
func moduleName(path string) (string, bool) {
	base := filepath.Base(path)
	for _, ext := range []string{".gz", ".xz", ".zst"} {
		base = strings.TrimSuffix(base, ext)
	}
	name, ok := strings.CutSuffix(base, ".ko")
	return canonical(name), ok && name != ""
}

// need appends name and what it depends on to the order.
func (r *resolver) need(name string) error {
	if r.seen[name] || r.builtin[name] {
		return nil
	}
	r.seen[name] = true
	path, ok := r.paths[name]
	if !ok {
		r.missing = append(r.missing, name)
		return nil
	}
	info, err := r.info(path)
	if err != nil {
		return err
	}
	for _, dep := range info.soft {
		if err := r.needSoft(dep); err != nil {
			return err
		}
	}
	for _, dep := range info.depends {
		if err := r.need(dep); err != nil {
			return err
		}
	}
	r.order = append(r.order, Module{Name: name, Path: path})
	return nil
}

// needSoft is need for a soft dependency: a name or an alias. An alias that
// something built in answers to ("crc32c") asks for nothing more: the modules
// that answer to it too are faster variants. What does not exist is no error.
func (r *resolver) needSoft(name string) error {
	if r.builtin[name] {
		return nil
	}
	if _, ok := r.paths[name]; ok {
		return r.need(name)
	}
	if r.aliases == nil {
		if err := r.readAliases(); err != nil {
			return err
		}
	}
	for _, module := range r.aliases[name] {
		if err := r.need(module); err != nil {
			return err
		}
	}
	return nil
}

// readAliases opens every module; it is for the rare kernel that needs it.
func (r *resolver) readAliases() error {
	r.aliases = map[string][]string{}
	for name, path := range r.paths {
		info, err := r.info(path)
		if err != nil {
			return err
		}
		for _, a := range info.aliases {
			r.aliases[a] = append(r.aliases[a], name)
		}
	}
	for _, modules := range r.aliases {
		slices.Sort(modules)
	}
	return nil
}

func (r *resolver) info(path string) (modinfo, error) {
	data, err := Module{Path: path}.Read()
	if err != nil {
		return modinfo{}, err
	}
	info, err := parseModinfo(bytes.NewReader(data))
	if err != nil {
		return modinfo{}, fmt.Errorf("module %s: %w", path, err)
	}
	return info, nil
}
