// Package builtinid says which builtin image duplex carries. It is apart from package
// embedded, which holds the image itself, for programs that only look whether it was
// imported.
package builtinid

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

//go:embed files
var files embed.FS

// ErrMissing reports that this duplex was compiled without one of the programs
// it carries: `go build` alone does not make them, `make build` does.
var ErrMissing = errors.New("not built into this binary")

// Get identifies the archive of package embedded's Builtin, for keying what is made of
// it without unpacking it.
func Get() (string, error) {
	id, err := files.ReadFile("files/builtin.sum")
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("builtin.zst: %w", ErrMissing)
	}
	if err != nil {
		return "", fmt.Errorf("read builtin.sum: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}
