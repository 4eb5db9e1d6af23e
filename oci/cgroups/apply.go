package cgroups

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/duplex-run/duplex/container/cgroup"
)

// Apply puts the limits in force. It is for a new group and for update.
func (s *Set) Apply(res *specs.LinuxResources) error {
	if res == nil || s == nil {
		return nil
	}
	list, err := cgroup.Writes(res, s.V2())
	if err != nil {
		return err
	}
	return cgroup.PutAll(list, s.Path)
}
