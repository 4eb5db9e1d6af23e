package apparmor

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Name is that of the profile here.
const Name = "duplex-default"

//go:embed duplex-default.bin
var compiled []byte

// dir is AppArmor's part of securityfs.
const dir = "/sys/kernel/security/apparmor"

// Enabled reports whether AppArmor is in force on this host.
func Enabled() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(b), "Y")
}

// Loaded reports whether the kernel has a profile of that name.
func Loaded(name string) (bool, error) {
	f, err := os.Open(dir + "/profiles")
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	sc := bufio.NewScanner(f) // a line is "name (mode)"
	for sc.Scan() {
		if got, _, ok := strings.Cut(sc.Text(), " ("); ok && got == name {
			return true, nil
		}
	}
	return false, sc.Err()
}

// Load gives the kernel the profile here. It takes CAP_MAC_ADMIN.
func Load() error {
	f, err := os.OpenFile(dir+"/.replace", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(compiled) // the kernel takes one write
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("load the AppArmor profile %s: %w", Name, err)
	}
	return nil
}
