// Package initprogram holds the program of a container's own processes,
// container/init. It is apart from package embedded, and not compressed, because
// small programs carry it that start quickly.
package initprogram

import "embed"

//go:embed files
var files embed.FS

// ELF returns the executable, nil when this duplex was compiled without:
// `go build` alone does not make it, `make build` does. It is not to be changed.
func ELF() []byte {
	data, err := files.ReadFile("files/container-init")
	if err != nil {
		return nil
	}
	return data
}
