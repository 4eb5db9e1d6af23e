package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxModule bounds a module's size, compressed or not.
const maxModule = 64 << 20

// modinfo is what a module says about itself in its .modinfo section: strings
// "key=value", each ended by NUL (include/linux/moduleparam.h, modpost).
type modinfo struct {
	depends []string // modules whose symbols it uses
	soft    []string // "pre" soft dependencies: names or aliases to load before
	aliases []string
}

// parseModinfo reads the .modinfo section of the module r.
func parseModinfo(r io.ReaderAt) (modinfo, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return modinfo{}, err
	}
	s := f.Section(".modinfo")
	if s == nil || s.Type == elf.SHT_NOBITS {
		return modinfo{}, errors.New("no .modinfo section: not a kernel module")
	}
	data, err := s.Data()
	if err != nil {
		return modinfo{}, err
	}
	return parseModinfoStrings(data), nil
}

func parseModinfoStrings(data []byte) modinfo {
	var m modinfo
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		key, value, ok := strings.Cut(string(entry), "=")
		if !ok {
			continue
		}
		switch key {
		case "depends":
			for d := range strings.SplitSeq(value, ",") {
				if d != "" {
					m.depends = append(m.depends, canonical(d))
				}
			}
		case "softdep":
			m.soft = append(m.soft, preDeps(value)...)
		case "alias":
			m.aliases = append(m.aliases, canonical(value))
		}
	}
	return m
}

// preDeps returns the modules after "pre:" in a soft dependency, which reads
// "pre: a b post: c" (modprobe.d(5)).
func preDeps(value string) []string {
	var out []string
	pre := false
	for word := range strings.FieldsSeq(value) {
		switch word {
		case "pre:":
			pre = true
		case "post:":
			pre = false
		default:
			if pre {
				out = append(out, canonical(word))
			}
		}
	}
	return out
}

// canonical spells a module's name as the kernel does: with underscores.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Module is a module to load.
type Module struct {
	// Name as in /proc/modules, with underscores.
	Name string `json:"name"`
	// Path of the .ko file, which may be compressed (.ko.xz, .ko.zst, .ko.gz).
	Path string `json:"path"`
}

// Read returns the uncompressed ELF object.
func (m Module) Read() ([]byte, error) {
	f, err := os.Open(m.Path)
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := readModule(f)
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", m.Path, err)
	}
	return data, nil
}

func readModule(r io.Reader) ([]byte, error) {
	data, err := readAtMost(r, maxModule)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
		return data, nil
	}
	c, err := detect(data)
	if err != nil {
		return nil, err
	}
	zr, err := c.open(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	defer func() { _ = zr.Close() }()
	if data, err = readAtMost(zr, maxModule); err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	return data, nil
}

func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("more than %d bytes", limit)
	}
	return data, nil
}
