package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/inside"
	"github.com/duplex-run/duplex/internal/embedded"
)

// Init turns a re-executed process into the container's init or its workload.
// In any other process it does nothing. main must call it before anything else.
func Init() { inside.Main() }

// Prefetch starts to load what the first run of this process needs, so that it
// is there when the caller has done what it has to do before Run. Optional.
func Prefetch() { go func() { _, _ = program() }() } // Run reports the error

// Program returns the executable of the container's own processes, see program.
// It stays open: it is not the caller's to close.
func Program() (*os.File, error) { return program() }

// carried is embedded.ContainerInit, but in tests: they test what they were
// compiled with.
var carried = embedded.ContainerInit

// program returns the executable of the container's own processes:
// the small one that duplex carries, in memory and sealed, so that nothing in a
// container can change a file of the host through /proc/PID/exe
// (CVE-2019-5736); or this very executable when it was built without.
//
// It stays open and is shared by all runs of this process.
var program = sync.OnceValues(func() (*os.File, error) {
	data, err := carried()
	if errors.Is(err, embedded.ErrMissing) {
		return os.Open("/proc/self/exe")
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = data.Close() }()
	f, err := sealed("duplex-init", data)
	if err != nil {
		return nil, fmt.Errorf("load the container's init: %w", err)
	}
	return f, nil
})

// sealed copies data to memory that nobody can change (memfd_create(2)).
func sealed(name string, data io.Reader) (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := io.Copy(f, data); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, errors.Join(fmt.Errorf("seal: %w", err), f.Close())
	}
	return f, nil
}
