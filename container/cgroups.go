package container

import (
	"os"

	"github.com/duplex-run/duplex/container/cgroup"
	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/workload"
)

// makeCgroups makes the container's groups and notes them in scratch, so that
// they go even if duplex is killed.
func makeCgroups(spec workload.Spec, scratch *hostdir.Run) (*cgroup.Set, error) {
	s, err := cgroup.New(cgroup.Options{
		Name:      "duplex-" + spec.ID,
		Resources: spec.Resources,
		Note:      scratch.NoteCgroup,
		Remove:    hostdir.RemoveCgroup,
	})
	if err != nil {
		return nil, &handshake.StepError{Step: "make the cgroup", Err: err}
	}
	return s, nil
}

// cgroupFiles are the descriptors that init hands on to exec, in the order of
// Setup's CgroupFD and ExecFiles.
func cgroupFiles(s *cgroup.Set) []*os.File {
	var out []*os.File
	if u := s.Unified(); u != nil {
		out = append(out, u)
	}
	return append(out, execFiles(s)...)
}

func execFiles(s *cgroup.Set) []*os.File {
	out := s.Tasks()
	if f, _ := s.PidsLimit(); f != nil {
		out = append(out, f)
	}
	return out
}
