package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// loadLate loads a module that only some workloads need, with what it depends
// on: those listed in dir/late-NAME, which is there whenever the kernel has the
// module, and empty when it is built in. The initramfs must still be the root.
func loadLate(dir, name string) error {
	order, err := os.ReadFile(filepath.Join(dir, "late-"+name))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("this guest kernel has no %s", name)
	}
	if err != nil {
		return fmt.Errorf("load module %s: %w", name, err)
	}
	return loadList(dir, order)
}
