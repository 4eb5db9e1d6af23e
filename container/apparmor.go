package container

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/duplex-run/duplex/internal/workload"
)

// The AppArmor profile that a container gets where it is loaded, and the name of
// none. duplex loads no profile itself: that takes AppArmor's compiler
// (apparmor_parser), and docker or the host's owner has done it, or not.
const (
	DefaultAppArmor    = "docker-default"
	UnconfinedAppArmor = "unconfined"
)

// apparmorDir is AppArmor's part of securityfs.
const apparmorDir = "/sys/kernel/security/apparmor"

// profile is the AppArmor profile to take on, "" for none.
func (l Layers) profile() (string, error) {
	if l.AppArmor == UnconfinedAppArmor {
		return "", nil
	}
	name := l.AppArmor
	if name == "" {
		name = DefaultAppArmor
	}
	// World-readable, and there when AppArmor is in force.
	if b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err != nil || !strings.HasPrefix(string(b), "Y") {
		if l.AppArmor == "" {
			return "", nil
		}
		return "", &workload.Error{Op: "container: set the AppArmor profile", Err: errors.New("this kernel has no AppArmor, or it is switched off"),
			Remedy: "Boot it with apparmor=1 security=apparmor, or leave the profile out."}
	}
	loaded, err := profileLoaded(name)
	switch {
	case err != nil && l.AppArmor == "" && errors.Is(err, fs.ErrPermission):
		return "", nil // the list is root's: a user cannot see what there is
	case err != nil && errors.Is(err, fs.ErrPermission):
		return name, nil // the kernel will say
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", &workload.Error{Op: "container: find the AppArmor profile", Err: err}
	case loaded:
		return name, nil
	case l.AppArmor == "":
		return "", nil
	}
	return "", &workload.Error{Op: "container: set the AppArmor profile", Err: fmt.Errorf("no profile %q is loaded", name),
		Remedy: "Load it with apparmor_parser."}
}

// profileLoaded looks for name in the kernel's list: a line is "name (mode)".
func profileLoaded(name string) (bool, error) {
	f, err := os.Open(apparmorDir + "/profiles")
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if got, _, ok := strings.Cut(sc.Text(), " ("); ok && got == name {
			return true, nil
		}
	}
	return false, sc.Err()
}
