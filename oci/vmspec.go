package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Annotations of a bundle that this runtime reads.
const (
	IsolationAnnotation = "dev.duplex.isolation" // container or vm
	NetworkAnnotation   = "dev.duplex.network"   // of a microVM that has no network namespace: none or user
)

// sandboxAnnotations are containerd's and CRI-O's, with the value "sandbox" for the
// container that holds the namespaces of a pod and runs nothing but the engine's
// own program, which waits.
var sandboxAnnotations = []string{"io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"}

// sandbox says whether s is that container.
func sandbox(s *specs.Spec) bool {
	return slices.ContainsFunc(sandboxAnnotations, func(a string) bool { return s.Annotations[a] == "sandbox" })
}

// Names below the directory that a machine's guest gets of its host.
const (
	guestDir     = "/duplex" // where the guest has it
	guestProgram = "duplex"
	guestRootfs  = "rootfs"
	guestConfig  = "config.json"
	guestMounts  = "mount" // and a number
)

// guestMemory is what a guest's kernel and agent take beside a container's own
// limit, in bytes.
const guestMemory = 160 << 20

// guestPlan is a bundle, divided between a machine and the runtime in its guest.
type guestPlan struct {
	spec   *specs.Spec // what the guest's runtime executes
	binds  []guestBind
	memory int64   // of the machine, in bytes; 0 is the default
	cpus   float64 // 0 is the default
	net    guestNet
	host   *specs.LinuxResources // what holds for the machine's processes on the host
	uts    string                // the namespace that is to be joined, whose names the machine gets
	warn   []string
}

// guestBind is a file or directory of the host that the guest sees below guestDir.
type guestBind struct {
	Name      string // there
	Source    string
	Recursive bool
	ReadOnly  bool
	What      string // for errors
}

// guestNet is how a machine is connected.
type guestNet string

const (
	netNone      guestNet = "none"
	netUser      guestNet = "user"      // duplex's own user-mode network
	netNamespace guestNet = "namespace" // the interface of the bundle's network namespace
)

// planGuest divides the bundle s, which was checked. What a machine cannot do is
// an error that names it.
func planGuest(s *specs.Spec, bundle string) (*guestPlan, error) {
	g := &guestPlan{binds: []guestBind{{Name: guestRootfs, Source: s.Root.Path, Recursive: true, What: "root.path"}}}
	var err error
	if g.spec, err = cloneSpec(s); err != nil {
		return nil, err
	}
	g.spec.Root.Path = filepath.Join(guestDir, guestRootfs)
	for _, step := range []func(*specs.Spec, string) error{
		g.namespaces, g.mounts, g.resources, g.devices, g.hooks, g.rest,
	} {
		if err := step(s, bundle); err != nil {
			return nil, err
		}
	}
	return g, nil
}

func cloneSpec(s *specs.Spec) (*specs.Spec, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	out := &specs.Spec{}
	return out, json.Unmarshal(data, out)
}

// notInVM is the error for what a microVM cannot do.
func notInVM(name, why string) error {
	return unsupported(name+" in a microVM", why)
}

// namespaces: the guest's runtime makes all it is to make in the guest, and the
// machine is in the network namespace.
func (g *guestPlan) namespaces(s *specs.Spec, _ string) error {
	for _, kind := range []specs.LinuxNamespaceType{specs.MountNamespace, specs.PIDNamespace} {
		if !newNamespace(s, kind) {
			return notInVM("the host's or another container's "+string(kind)+" namespace", "the guest has a kernel of its own")
		}
	}
	g.spec.Linux.Namespaces = nil
	for _, n := range s.Linux.Namespaces {
		switch {
		case n.Path == "" || n.Type == specs.NetworkNamespace:
		case n.Type == specs.UTSNamespace:
			g.uts = n.Path
		case n.Type == specs.IPCNamespace || n.Type == specs.CgroupNamespace:
			g.warn = append(g.warn, fmt.Sprintf("linux.namespaces: the %s namespace %s is not joined: the machine gets one of its own", n.Type, n.Path))
		default:
			return notInVM(fmt.Sprintf("linux.namespaces: joining the %s namespace %s", n.Type, n.Path), "the guest has a kernel of its own")
		}
		n.Path = ""
		if n.Type != specs.NetworkNamespace {
			g.spec.Linux.Namespaces = append(g.spec.Linux.Namespaces, n)
		}
	}
	// The guest's only one is the container's: the agent has set it up.
	g.spec.Linux.Namespaces = append(g.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/proc/1/ns/net"})
	return g.network(s)
}

func (g *guestPlan) network(s *specs.Spec) error {
	want, ok := s.Annotations[NetworkAnnotation]
	switch {
	case ok && want != string(netNone) && want != string(netUser):
		return fmt.Errorf("annotation %s: %q is neither none nor user", NetworkAnnotation, want)
	case ok:
		g.net = guestNet(want)
	case !hasNamespace(s, specs.NetworkNamespace):
		return notInVM("the host's network namespace", "the guest has a network stack of its own; give the bundle a network namespace, or the annotation "+NetworkAnnotation+" none or user")
	default:
		g.net = netNamespace
	}
	return nil
}

// guestTypes are the file systems that the guest's runtime mounts itself.
var guestTypes = []string{"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "ramfs"}

// mounts turns binds of the host's files into binds of what the guest gets.
func (g *guestPlan) mounts(s *specs.Spec, bundle string) error {
	for i := range g.spec.Mounts {
		m := &g.spec.Mounts[i]
		p, err := mountPlan(*m)
		if err != nil {
			return err
		}
		what := fmt.Sprintf("mounts[%d] (%s)", i, m.Destination)
		if p.Type != "" {
			if !slices.Contains(guestTypes, p.Type) {
				return notInVM(what+": type "+p.Type, "its source is the host's")
			}
			if p.Type == "sysfs" && hasNamespace(s, specs.UserNamespace) {
				// Only who owns the network namespace may mount one, and that is the guest's.
				m.Type, m.Source, m.Options = "bind", "/sys", append(m.Options, "rbind")
			}
			continue
		}
		if slices.ContainsFunc(m.Options, func(o string) bool { return o == "shared" || o == "rshared" }) {
			return notInVM(what+": option shared", "mounts of the guest do not reach the host")
		}
		b := guestBind{Name: guestMounts + strconv.Itoa(i), Source: p.Source, What: what,
			Recursive: slices.Contains(m.Options, "rbind"), ReadOnly: readOnly(m.Options)}
		if !filepath.IsAbs(b.Source) {
			b.Source = filepath.Join(bundle, b.Source)
		}
		g.binds = append(g.binds, b)
		m.Source = filepath.Join(guestDir, b.Name)
	}
	return nil
}

// readOnly says whether the options end with a mount that is.
func readOnly(options []string) bool {
	ro := false
	for _, o := range options {
		switch o {
		case "ro", "rro":
			ro = true
		case "rw", "rrw":
			ro = false
		}
	}
	return ro
}

// resources: memory and processes are limited in the guest, in a machine that is
// larger by what its kernel takes; processor time is the machine's.
func (g *guestPlan) resources(s *specs.Spec, _ string) error {
	r := g.spec.Linux.Resources
	if r == nil {
		return nil
	}
	switch {
	case r.BlockIO != nil && (r.BlockIO.Weight != nil || r.BlockIO.LeafWeight != nil ||
		len(r.BlockIO.WeightDevice)+len(r.BlockIO.ThrottleReadBpsDevice)+len(r.BlockIO.ThrottleWriteBpsDevice)+
			len(r.BlockIO.ThrottleReadIOPSDevice)+len(r.BlockIO.ThrottleWriteIOPSDevice) > 0):
		return notInVM("linux.resources.blockIO", "its files are shares, not block devices")
	case len(r.HugepageLimits) > 0:
		return notInVM("linux.resources.hugepageLimits", "the guest has no huge pages to hand out")
	case r.Network != nil && (r.Network.ClassID != nil || len(r.Network.Priorities) > 0):
		return notInVM("linux.resources.network", "its packets are the machine's")
	case r.CPU != nil && (r.CPU.RealtimePeriod != nil || r.CPU.RealtimeRuntime != nil):
		return notInVM("linux.resources.cpu.realtimeRuntime and realtimePeriod", "a vCPU is an ordinary thread")
	}
	r.BlockIO, r.Network = nil, nil // empty ones
	if r.Memory != nil && r.Memory.Limit != nil && *r.Memory.Limit > 0 {
		g.memory = (min(*r.Memory.Limit, 1<<50) + guestMemory + 4095) &^ 4095
	}
	if c := r.CPU; c != nil {
		if c.Quota != nil && *c.Quota > 0 {
			period := uint64(100_000) // the kernel's default, in microseconds
			if c.Period != nil && *c.Period > 0 {
				period = *c.Period
			}
			g.cpus = float64(*c.Quota) / float64(period)
		}
		host := *c
		host.Quota, host.Period, host.Burst = nil, nil, nil
		if !emptyCPU(&host) {
			g.host = &specs.LinuxResources{CPU: &host}
		}
		r.CPU = nil
	}
	return nil
}

func emptyCPU(c *specs.LinuxCPU) bool {
	return c.Shares == nil && c.Idle == nil && c.Cpus == "" && c.Mems == ""
}

// devices: nodes of the host's hardware would be something else in the guest.
func (g *guestPlan) devices(s *specs.Spec, _ string) error {
	for _, d := range s.Linux.Devices {
		known := d.Type == "p" || (d.Type == "c" || d.Type == "u") && (d.Major == 1 || d.Major == 5) // mem, tty
		if !known {
			return notInVM(fmt.Sprintf("linux.devices: %s (%s %d:%d)", d.Path, d.Type, d.Major, d.Minor), "the guest does not have the host's devices")
		}
	}
	return nil
}

// hooks: those of the runtime's namespaces run on the host.
func (g *guestPlan) hooks(s *specs.Spec, _ string) error {
	if s.Hooks == nil {
		return nil
	}
	if len(s.Hooks.CreateContainer) > 0 {
		return notInVM("hooks.createContainer", "its program is the host's, and the container's namespaces are the guest's")
	}
	g.spec.Hooks = nil
	if len(s.Hooks.StartContainer) > 0 {
		g.spec.Hooks = &specs.Hooks{StartContainer: s.Hooks.StartContainer}
	}
	return nil
}

func (g *guestPlan) rest(s *specs.Spec, _ string) error {
	l := g.spec.Linux
	p, err := rootPropagation(l.RootfsPropagation)
	switch {
	case err != nil:
		return err
	case p&unix.MS_SHARED != 0:
		return notInVM("linux.rootfsPropagation "+l.RootfsPropagation, "mounts of the guest do not reach the host")
	case len(l.NetDevices) > 0:
		return notInVM("linux.netDevices", "the guest has a kernel of its own; put the interface into the bundle's network namespace instead")
	case l.Seccomp != nil && l.Seccomp.ListenerPath != "":
		return notInVM("linux.seccomp.listenerPath", "the descriptor would be of the guest's kernel")
	}
	if a := g.spec.Process; a != nil && a.ApparmorProfile != "" {
		g.warn = append(g.warn, fmt.Sprintf("process.apparmorProfile %s has no effect in a microVM: the host's profiles are not in the guest's kernel", a.ApparmorProfile))
		a.ApparmorProfile = ""
	}
	l.CgroupsPath = "/container"
	g.spec.Annotations = maps.Clone(g.spec.Annotations)
	delete(g.spec.Annotations, IsolationAnnotation)
	delete(g.spec.Annotations, NetworkAnnotation)
	if g.spec.Hostname != "" && !hasNamespace(g.spec, specs.UTSNamespace) {
		return errors.New("hostname needs a uts namespace")
	}
	return nil
}
