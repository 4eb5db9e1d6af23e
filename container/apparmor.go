package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/duplex-run/duplex/container/apparmor"
	"github.com/duplex-run/duplex/internal/workload"
)

// UnconfinedAppArmor is the name of no AppArmor profile.
const UnconfinedAppArmor = "unconfined"

// profile is the AppArmor profile to take on, "" for none. That of package
// apparmor is loaded when root needs it; others get it once it is, and run without
// until then.
func (l Layers) profile() (string, error) {
	fail := func(err error, remedy string) (string, error) {
		return "", &workload.Error{Op: "container: set the AppArmor profile", Err: err, Remedy: remedy}
	}
	switch {
	case l.AppArmor == UnconfinedAppArmor:
		return "", nil
	case !apparmor.Enabled() && l.AppArmor == "":
		return "", nil
	case !apparmor.Enabled():
		return fail(errors.New("this kernel has no AppArmor, or it is switched off"),
			"Boot it with apparmor=1 security=apparmor, or leave the profile out.")
	}
	name := l.AppArmor
	if name == "" {
		name = apparmor.Name
	}
	loaded, err := apparmor.Loaded(name)
	switch {
	case loaded:
		return name, nil
	case l.AppArmor == "" && os.Geteuid() != 0:
		return "", nil
	case name == apparmor.Name && os.Geteuid() == 0:
		err := apparmor.Load()
		if l.AppArmor == "" && (errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist)) {
			return "", nil // in another container, which may not
		}
		if err != nil {
			return fail(err, "Give duplex CAP_MAC_ADMIN and the host's securityfs, or take --security-opt apparmor=unconfined.")
		}
		return name, nil
	case err != nil:
		return fail(err, "")
	}
	return fail(fmt.Errorf("no profile %q is loaded", name), "Load it with apparmor_parser.")
}
