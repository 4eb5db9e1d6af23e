// Command sha256sum prints the digest of each file, or of its input, as coreutils does:
// sha256sum [FILE]...
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
)

func main() {
	names := os.Args[1:]
	if len(names) == 0 {
		names = []string{"-"}
	}
	status := 0
	for _, name := range names {
		sum, err := digest(name)
		if err != nil {
			_, _ = fmt.Fprintln(os.Stderr, "sha256sum:", err)
			status = 1
			continue
		}
		fmt.Printf("%x  %s\n", sum, name)
	}
	os.Exit(status)
}

func digest(name string) ([]byte, error) {
	in := os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	h := sha256.New()
	if _, err := io.Copy(h, in); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}
