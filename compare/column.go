package compare

import (
	"maps"
	"slices"
	"strings"

	"github.com/duplex-run/duplex/internal/workload"
)

// Column is a way to run the image: an isolation, a microVM that does not boot,
// or a container without one of its layers.
type Column string

// The columns, and what begins the name of a container without a layer.
const (
	VM        = Column(workload.VM)
	Container = Column(workload.Container)
	// WarmVM is a microVM restored from a snapshot: `duplex run --vm --warm`.
	WarmVM Column = "vm-warm"

	without = string(Container) + "-no-"
)

// layers are the flags of `duplex run` that switch a layer off.
var layers = map[string]string{
	"seccomp": "--security-opt=seccomp=unconfined", "landlock": "--security-opt=landlock=unconfined",
	"masks": "--security-opt=systempaths=unconfined", "nnp": "--security-opt=no-new-privileges=false",
	"caps": "--cap-add=ALL", "pid": "--pid=host", "ipc": "--ipc=host", "uts": "--uts=host", "cgroup": "--cgroupns=host",
	"network": "--network=host", "user": "--userns=host",
}

// Layers are the names of what a container can be compared without, as
// container-no-NAME.
func Layers() []string { return slices.Sorted(maps.Keys(layers)) }

// MaxColumns is how many are compared at once.
const MaxColumns = 3

// Valid says whether c is one of the columns.
func (c Column) Valid() bool {
	layer, ok := strings.CutPrefix(string(c), without)
	return c == VM || c == Container || c == WarmVM || ok && layers[layer] != ""
}

// Container says whether it is a container that runs the image.
func (c Column) Container() bool { return c.Isolation() == workload.Container }

// Isolation is what runs the image.
func (c Column) Isolation() workload.Isolation {
	if c == VM || c == WarmVM {
		return workload.VM
	}
	return workload.Container
}

// flags make `duplex run` run it, with the flags that all columns are given.
func (c Column) flags(shared ...string) []string {
	flags := []string{"--" + string(c.Isolation())}
	if c == WarmVM {
		flags = append(flags, "--warm")
	}
	layer, ok := strings.CutPrefix(string(c), without)
	if layer == "network" { // in the host's, whatever the others have, where no port needs publishing
		shared = slices.DeleteFunc(slices.Clone(shared), func(f string) bool {
			return strings.HasPrefix(f, "--network=") || strings.HasPrefix(f, "--publish=")
		})
	}
	flags = append(flags, shared...)
	if ok {
		flags = append(flags, layers[layer])
	}
	return flags
}
