package blk_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio/blk"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "odd")
	if err := os.WriteFile(odd, make([]byte, 513), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file",
		odd:                        "not a multiple of 512",
		dir:                        "neither a file nor a block device",
	} {
		if dev, err := blk.Open(blk.Options{Path: path, ReadOnly: true}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("open %s: %v, %v", path, dev, err)
		}
	}
}

// A disk has one writer, or readers.
func TestLock(t *testing.T) {
	path, _ := diskFile(t)
	ro, rw := blk.Options{Path: path, ReadOnly: true}, blk.Options{Path: path}
	for _, c := range []struct {
		name          string
		first, second blk.Options
		want          error
	}{
		{"two readers", ro, ro, nil},
		{"two writers", rw, rw, blk.ErrInUse},
		{"a reader, then a writer", ro, rw, blk.ErrInUse},
		{"a writer, then a reader", rw, ro, blk.ErrInUse},
	} {
		t.Run(c.name, func(t *testing.T) {
			first := openWith(t, c.first)
			second, err := blk.Open(c.second)
			if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err == nil {
				err = second.Close()
			} else {
				err = nil
			}
			if err := errors.Join(err, first.Close(), first.Close()); err != nil {
				t.Error(err)
			}
			again := openWith(t, c.second) // the lock went with the device
			if err := again.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A jailed monitor gets its disks as descriptors.
func TestNew(t *testing.T) {
	path, data := diskFile(t)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blk.New(f, blk.Options{}); err == nil || !strings.Contains(err.Error(), "not open for reading and writing") {
		t.Errorf("a writable disk of a file open for reading: %v", err)
	}
	for _, n := range []int{-1, blk.MaxQueues + 1} {
		if _, err := blk.New(f, blk.Options{ReadOnly: true, Queues: n}); err == nil {
			t.Errorf("%d queues accepted", n)
		}
	}
	dev, err := blk.New(f, blk.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	readFirst(t, v.Start(t, dev), data)
}
