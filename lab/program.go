package lab

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/duplex-run/duplex/internal/workload"
)

// needs adds what the program in file cannot run without: the interpreter that
// a script or a dynamically linked program names, and shared libraries. A file
// that is no program needs nothing. What a program opens by itself later
// (plug-ins, configuration) is not found out here: Options.Carry is for that.
func (c *cargo) needs(file string) error {
	if info, err := os.Stat(file); err != nil || info.Mode()&0o111 == 0 {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, 4)
	if _, err := io.ReadFull(f, head); err != nil {
		return nil // too short to be a program
	}
	switch {
	case string(head) == elf.ELFMAG:
		return c.needsELF(file)
	case string(head[:2]) == "#!":
		if _, err := f.Seek(2, io.SeekStart); err != nil {
			return err
		}
		line, err := bufio.NewReader(io.LimitReader(f, 256)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		words := strings.Fields(line)
		if len(words) == 0 || slices.Contains(c.libs, words[0]) {
			return nil
		}
		if _, err := os.Stat(words[0]); err != nil {
			return nil // the lab's own, or a broken script: the kernel will say
		}
		c.libs = append(c.libs, words[0])
		return c.needs(words[0])
	}
	return nil
}

// needsELF adds the interpreter of a dynamically linked program and its shared
// libraries, transitively.
func (c *cargo) needsELF(file string) error {
	f, err := elf.Open(file)
	if err != nil {
		return nil // not for this kernel either
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz == 0 || p.Filesz > 4096 {
			continue
		}
		name := make([]byte, p.Filesz)
		if _, err := p.ReadAt(name, 0); err != nil {
			return fmt.Errorf("read the interpreter of %s: %w", file, err)
		}
		c.libs = appendNew(c.libs, strings.TrimRight(string(name), "\x00"))
	}
	libs, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read the libraries of %s: %w", file, err)
	}
	for _, lib := range libs {
		p, err := findLibrary(f, filepath.Dir(file), lib)
		if err != nil {
			return &workload.Error{Op: "carry " + file + " into the lab", Err: err}
		}
		if !slices.Contains(c.libs, p) {
			c.libs = append(c.libs, p)
			if err := c.needsELF(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// findLibrary looks a DT_NEEDED entry up as ld.so(8) does: RPATH and RUNPATH of
// the object that needs it, ld.so.conf's directories, the default ones.
func findLibrary(f *elf.File, origin, lib string) (string, error) {
	if strings.Contains(lib, "/") {
		return lib, nil
	}
	var dirs []string
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		values, err := f.DynString(tag)
		if err != nil {
			return "", err
		}
		for _, v := range values {
			for dir := range strings.SplitSeq(v, ":") {
				dir = strings.ReplaceAll(strings.ReplaceAll(dir, "${ORIGIN}", origin), "$ORIGIN", origin)
				dirs = append(dirs, dir)
			}
		}
	}
	dirs = append(dirs, configuredDirs("/etc/ld.so.conf", 0)...)
	dirs = append(dirs, "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
	for _, dir := range dirs {
		p := filepath.Join(dir, lib)
		if !filepath.IsAbs(p) {
			continue
		}
		if e, err := elf.Open(p); err == nil {
			match := e.Class == f.Class && e.Machine == f.Machine
			_ = e.Close()
			if match {
				return p, nil
			}
		}
	}
	return "", fmt.Errorf("shared library %s: not found", lib)
}

// configuredDirs reads ld.so.conf and what it includes.
func configuredDirs(conf string, depth int) []string {
	data, err := os.ReadFile(conf)
	if err != nil || depth > 4 {
		return nil
	}
	var dirs []string
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		switch {
		case len(words) == 2 && words[0] == "include":
			files, _ := filepath.Glob(words[1])
			for _, file := range files {
				dirs = append(dirs, configuredDirs(file, depth+1)...)
			}
		case len(words) == 1 && filepath.IsAbs(words[0]):
			dirs = append(dirs, words[0])
		}
	}
	return dirs
}
