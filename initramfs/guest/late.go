package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// balloonDelay is how long after the workload's start the balloon's driver is
// loaded: memory worth giving back takes longer to gather, and a workload that is
// over by then is not slowed down.
const balloonDelay = 2 * time.Second

// balloonLater loads the balloon's driver once the workload has run for a while.
// The initramfs must still be the root; its modules stay in reach by descriptor.
func balloonLater(dir string) (start func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("load module virtio_balloon: %w", err)
	}
	return func() {
		time.AfterFunc(balloonDelay, func() {
			defer func() { _ = f.Close() }()
			if err := loadLate(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), "virtio_balloon"); err != nil {
				fmt.Fprintln(os.Stderr, "duplex-agent:", err) // the workload does without
			}
		})
	}, nil
}

// loadLate loads a module that only some workloads need, with what it depends
// on: those listed in dir/late-NAME, which is there whenever the kernel has the
// module, and empty when it is built in. The initramfs must still be the root.
func loadLate(dir, name string) error {
	order, err := os.ReadFile(filepath.Join(dir, "late-"+name))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w %s", errNoModule, name)
	}
	if err != nil {
		return fmt.Errorf("load module %s: %w", name, err)
	}
	return loadList(dir, order)
}

// errNoModule is a module that the kernel has neither built in nor as a file.
var errNoModule = errors.New("this guest kernel has no")
