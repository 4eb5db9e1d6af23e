package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/duplex-run/duplex/internal/vmmbench"
)

// Where things are in the lab, whose /tmp is a tmpfs.
const (
	diskFile = "/tmp/disk"
	shareDir = "/tmp/share"
	fsSocket = "/tmp/virtiofsd.sock"
	tapName  = "tap0"
)

// makeFiles makes the disk and the shared directory.
func makeFiles() error {
	if err := writeRandom(diskFile, vmmbench.DiskSize); err != nil {
		return err
	}
	for i := range vmmbench.ShareDirs {
		dir := filepath.Join(shareDir, vmmbench.ShareTree, fmt.Sprintf("directory-%d", i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for j := range vmmbench.ShareFiles {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%d", j)), []byte("content"), 0o644); err != nil {
				return err
			}
		}
	}
	return writeRandom(filepath.Join(shareDir, vmmbench.ShareFile), vmmbench.ShareFileSize)
}

// writeRandom makes a file of n bytes that compress badly and are always the same.
func writeRandom(path string, n int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	r := rand.NewChaCha8([32]byte{1})
	var block [1 << 16]byte
	for i := 0; i < n; i += len(block) {
		if i%(1<<20) == 0 {
			_, _ = r.Read(block[:])
		}
		if _, err := w.Write(block[:]); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}
