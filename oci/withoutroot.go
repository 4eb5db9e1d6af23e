package oci

import (
	"errors"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/internal/workload"
)

// groupsWithoutRoot leaves the groups alone in a user namespace that a user made:
// setgroups(2) is denied there (user_namespaces(7)).
func groupsWithoutRoot(s *specs.Spec, p *handshake.Process) error {
	if p == nil || os.Geteuid() == 0 || !hasNamespace(s, specs.UserNamespace) {
		return nil
	}
	if len(p.Groups) > 0 {
		return errors.New("process.user.additionalGids need root: a user namespace made without denies setgroups(2)")
	}
	p.NoGroups = true
	return nil
}

// withoutRoot says what a user's bundle lacks when the kernel refused its process.
func (c *Container) withoutRoot(err error) error {
	if os.Geteuid() == 0 || hasNamespace(c.Spec, specs.UserNamespace) || !errors.Is(err, unix.EPERM) {
		return err
	}
	return &workload.Error{Op: "start the container's process", Err: errors.New("without root the bundle has to have a user namespace"),
		Remedy: "'duplex oci spec --rootless' writes a config.json with one."}
}
