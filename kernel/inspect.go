package kernel

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/duplex-run/duplex/internal/workload"
)

// Info is what Inspect finds in a kernel image.
type Info struct {
	Format  string `json:"format"` // "bzImage" or "vmlinux"
	Release string `json:"release"`
	Version string `json:"version"`
}

// Inspect reads the kernel image at path. Errors are *workload.Error.
func Inspect(path string) (*Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &workload.Error{Op: "open kernel", Err: err}
	}
	defer func() { _ = f.Close() }()
	size, err := regularSize(f)
	if err != nil {
		return nil, &workload.Error{Op: "kernel " + path, Err: err}
	}
	if checkELF(f) == nil {
		return &Info{Format: "vmlinux"}, nil
	}
	img, err := parseBzImage(f, size)
	if errors.Is(err, errNotBzImage) {
		return nil, &workload.Error{Op: "kernel " + path, Err: errors.New("neither a bzImage nor an ELF vmlinux for x86-64"),
			Remedy: "give an uncompressed vmlinux or a bzImage (/boot/vmlinuz-*)"}
	}
	if err != nil {
		return nil, &workload.Error{Op: "kernel " + path, Err: fmt.Errorf("bzImage: %w", err)}
	}
	release, _, _ := strings.Cut(img.version, " ")
	return &Info{Format: "bzImage", Release: release, Version: img.version}, nil
}
