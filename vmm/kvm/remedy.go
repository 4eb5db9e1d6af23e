package kvm

import (
	"errors"
	"os"
)

// Remedy says what a user can do about an error of Open; "" when nothing is
// known to help.
func Remedy(err error) string {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "Load the kvm_amd or kvm_intel module; if the processor offers no virtualisation " +
			"here (a VM without nested virtualisation, or a firmware switch), use a container or the lab."
	case errors.Is(err, os.ErrPermission):
		return "Join the group that owns " + Path + " (usually: sudo usermod -aG kvm $USER, then log in again)."
	}
	return ""
}
