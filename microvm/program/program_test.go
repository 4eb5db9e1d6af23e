package program

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/duplex-run/duplex/internal/embedded"
	"github.com/duplex-run/duplex/internal/hostdir"
)

const content = "#!/bin/sh\n"

// openTest opens the program at path that carries content.
func openTest(t *testing.T, path string) (string, error) {
	t.Helper()
	carried, err := fstest.MapFS{"monitor": {Data: []byte(content)}}.Open("monitor")
	if err != nil {
		t.Fatal(err)
	}
	f, err := open(path, carried)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), nil
}

func TestOpenMakesIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "monitor")
	for range 2 {
		if got, err := openTest(t, path); got != content || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o500 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(path string) error
		want  string // in the error; "" when the file is made anew
	}{
		"others may write": {func(p string) error { return os.Chmod(p, 0o522) }, "others may write to it"},
		"a link": {func(p string) error {
			return errors.Join(os.Rename(p, p+"2"), os.Symlink(p+"2", p))
		}, "too many levels of symbolic links"},
		"a directory": {func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) }, "no regular file"},
		"cut short":   {func(p string) error { return os.Truncate(p, 3) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "monitor")
			if _, err := openTest(t, path); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := test.spoil(path); err != nil {
				t.Fatal(err)
			}
			got, err := openTest(t, path)
			switch {
			case test.want == "" && (got != content || err != nil):
				t.Errorf("%q, %v", got, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
}

func TestOpenRefusesAForeignFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	path := filepath.Join(t.TempDir(), "monitor")
	if _, err := openTest(t, path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 1, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := openTest(t, path); !errors.Is(err, hostdir.ErrForeign) {
		t.Errorf("%v, want %v", err, hostdir.ErrForeign)
	}
}

// What duplex carries is an executable of its own, not duplex once more.
func TestCarried(t *testing.T) {
	t.Setenv("DUPLEX_CACHE", t.TempDir())
	f, err := Open()
	if errors.Is(err, embedded.ErrMissing) || errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("run `make build` first: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil || string(magic[:]) != "\x7fELF" {
		t.Errorf("%q, %v", magic, err)
	}
}
