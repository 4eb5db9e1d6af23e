package inside

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// dropBounding takes all but keep out of the calling thread's bounding set.
func dropBounding(keep uint64) error {
	for c := uint(0); c < 64; c++ {
		if keep&(1<<c) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // the kernel has no capability c, nor any after it
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, err)
		}
	}
	return nil
}

// setCaps gives the calling thread set, as far as it has it now, as permitted
// and effective capabilities and none as inheritable or ambient ones.
func setCaps(set uint64) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	for i := range data {
		word := uint32(set >> (32 * i))
		data[i].Permitted &= word
		data[i].Effective = data[i].Permitted
		data[i].Inheritable = 0 // the kernel clears the ambient set with it
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}
