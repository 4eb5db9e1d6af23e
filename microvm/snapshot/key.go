package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Key says what a machine was made of. Asked gives a snapshot its name; all of it
// must be equal for the snapshot to be used.
type Key struct {
	Asked
	Duplex string `json:"duplex"` // version
	Host   string `json:"host"`   // its kernel and processor
	// The files, by path, size, inode and time of the last change: the guest has
	// parts of them in its memory.
	KernelFile string `json:"kernel_file"`
	InitrdFile string `json:"initrd_file"`
	ImageFile  string `json:"image_file"`
}

// Asked is what a user decides about a machine.
type Asked struct {
	Image   string `json:"image"`  // digest
	Kernel  string `json:"kernel"` // path
	Cmdline string `json:"cmdline"`
	Memory  uint64 `json:"memory"` // bytes
	CPUs    int    `json:"cpus"`
}

// Name is the name of the snapshot of a.
func (a Asked) Name() string {
	b, err := json.Marshal(a)
	if err != nil {
		panic(err) // strings and numbers
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}

// ErrStale is wrapped by the errors about a snapshot that was made by or of
// something else than there is now.
var ErrStale = errors.New("the snapshot is stale")

// differs says why a snapshot of k cannot serve for want.
func (k Key) differs(want Key) error {
	for _, f := range []struct{ what, have, want string }{
		{"image", k.Image, want.Image},
		{"kernel", k.Kernel, want.Kernel},
		{"kernel command line", k.Cmdline, want.Cmdline},
		{"memory", fmt.Sprint(k.Memory), fmt.Sprint(want.Memory)},
		{"CPUs", fmt.Sprint(k.CPUs), fmt.Sprint(want.CPUs)},
		{"duplex", k.Duplex, want.Duplex},
		{"host", k.Host, want.Host},
		{"kernel file", k.KernelFile, want.KernelFile},
		{"initramfs file", k.InitrdFile, want.InitrdFile},
		{"image file", k.ImageFile, want.ImageFile},
	} {
		if f.have != f.want {
			return fmt.Errorf("%w: its %s was %q, now it is %q", ErrStale, f.what, f.have, f.want)
		}
	}
	return nil
}

// FileID identifies a file and its contents without reading it.
func FileID(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("stat %s: no inode", path)
	}
	return fmt.Sprintf("%s size %d inode %d changed %d.%09d", path, st.Size, st.Ino, st.Mtim.Sec, st.Mtim.Nsec), nil
}

// HostID identifies the host's kernel and its processor: what KVM offers guests
// depends on both. The CPUID leaves that the guest got are compared besides, when
// it is restored.
func HostID() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	return fmt.Sprintf("%s %s %s", unix.ByteSliceToString(u.Machine[:]), unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Version[:])), nil
}
