package oci

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxConfig bounds the bytes of a config.json; docker's are about 20 KiB.
const maxConfig = 16 << 20

// Load reads and checks the bundle in dir. The rootfs of the result is
// absolute, and a directory. The configuration's text comes with it.
func Load(dir string) (*specs.Spec, []byte, error) {
	data, err := readConfig(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, nil, err
	}
	spec, err := Parse(data)
	if err != nil {
		return nil, nil, err
	}
	root := spec.Root.Path
	if !filepath.IsAbs(root) {
		root = filepath.Join(dir, root)
	}
	// The rootfs may be named through links; what is mounted is where they lead.
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return nil, nil, fmt.Errorf("root.path: %w", err)
	}
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		return nil, nil, fmt.Errorf("root.path: %s is not a directory", root)
	}
	if root == "/" {
		return nil, nil, errors.New("root.path: it is the host's root directory")
	}
	spec.Root.Path = root
	return spec, data, nil
}

func readConfig(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a fifo must not hang
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is not a regular file", path), err)
	}
	var data bytes.Buffer
	data.Grow(int(min(info.Size(), maxConfig)) + bytes.MinRead) // at once: it is what reading takes
	if _, err := data.ReadFrom(io.LimitReader(f, maxConfig+1)); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if data.Len() > maxConfig {
		return nil, fmt.Errorf("%s: longer than %d bytes", path, maxConfig)
	}
	return data.Bytes(), nil
}

// Parse parses and checks a config.json. Properties it does not know are left
// alone, as the specification says (config.md, "Extensibility"); those it knows
// and does not support are errors.
func Parse(data []byte) (*specs.Spec, error) {
	spec, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("parse config.json: %w", err)
	}
	if err := checkVersion(spec.Version); err != nil {
		return nil, err
	}
	if err := validate(spec); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	return spec, nil
}

// checkVersion accepts what version 1.3 can be read as: every 1.x release
// (spec.md and semver.org: a major version keeps its meaning).
func checkVersion(v string) error {
	major, rest, ok := strings.Cut(v, ".")
	minor, patch, ok2 := strings.Cut(rest, ".")
	patch, _, _ = strings.Cut(patch, "-")
	patch, _, _ = strings.Cut(patch, "+")
	if !ok || !ok2 || !number(major) || !number(minor) || !number(patch) {
		return fmt.Errorf("config.json: ociVersion %q is not a version (want MAJOR.MINOR.PATCH)", v)
	}
	if major != "1" {
		return fmt.Errorf("config.json: ociVersion %s is not supported: this is a runtime for 1.0.0 to %s", v, specs.Version)
	}
	return nil
}

func number(s string) bool {
	_, err := strconv.ParseUint(s, 10, 31)
	return err == nil && (s == "0" || s[0] != '0')
}
