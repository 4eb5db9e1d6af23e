package isolation

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Verdict says what an attempt led to.
type Verdict string

// The verdicts; see the package documentation.
const (
	Denied    Verdict = "denied"
	Allowed   Verdict = "allowed"
	GuestOnly Verdict = "allowed, guest only"
)

// Finding is one row of one side.
type Finding struct {
	Name string `json:"name"`
	// Verdict is set for attempts, empty for facts.
	Verdict Verdict `json:"verdict,omitempty"`
	// Detail is the fact, or how the kernel answered the attempt.
	Detail string `json:"detail,omitempty"`
}

func (f Finding) String() string {
	switch {
	case f.Verdict == "":
		return f.Detail
	case f.Detail == "":
		return string(f.Verdict)
	default:
		return string(f.Verdict) + " (" + f.Detail + ")"
	}
}

// Classify holds what the probe saw against what the host knows of itself. The
// rows and their order are the same for every Observation of one probe.
func Classify(o *Observation, h HostFacts) []Finding {
	own := OwnKernel(o, h)
	out := facts(o, h, own)
	for _, a := range o.Attempts {
		out = append(out, Finding{Name: a.Name, Verdict: verdict(a, own), Detail: attemptDetail(a)})
	}
	return out
}

// OwnKernel says whether another kernel than the host's answered the probe. A
// boot id is drawn at random once a boot, so equal ids mean the same kernel; a
// side that hides it counts as running on the host's.
func OwnKernel(o *Observation, h HostFacts) bool {
	return o.BootID != "" && o.BootID != h.BootID
}

func verdict(a Attempt, own bool) Verdict {
	switch {
	case !a.Allowed:
		return Denied
	case own:
		return GuestOnly
	default:
		return Allowed
	}
}

func attemptDetail(a Attempt) string {
	switch {
	case a.Step != "":
		return "not tried: " + a.Step
	case a.Allowed:
		return "" // the errno of a harmless argument says nothing more
	default:
		return a.Errno
	}
}

func facts(o *Observation, h HostFacts, own bool) []Finding {
	out := []Finding{
		{Name: "kernel", Detail: o.Kernel},
		{Name: "boot id", Detail: bootID(o, own)},
		{Name: "processes visible", Detail: strconv.Itoa(o.Processes)},
		{Name: "user id", Detail: userID(o, own)},
		{Name: "capabilities", Detail: fmt.Sprintf("%s effective, %s bounding", countCaps(o.Caps.Effective), countCaps(o.Caps.Bounding))},
		{Name: "seccomp", Detail: seccomp(o)},
	}
	for _, w := range o.Writable {
		out = append(out, Finding{Name: "writable " + w.Root, Detail: walk(w)})
	}
	open := 0
	for _, d := range o.Devices {
		if d.Err == "" {
			open++
		}
	}
	return append(out,
		Finding{Name: "devices that open", Detail: fmt.Sprintf("%d of %d", open, len(o.Devices))},
		Finding{Name: "boot time", Detail: same(abs(o.Values.BTime-h.Values.BTime) <= 1, o.Values.BTime == 0)},
		Finding{Name: "memory total", Detail: same(o.Values.MemTotal == h.Values.MemTotal, o.Values.MemTotal == 0)},
		Finding{Name: "CPU model", Detail: same(o.Values.CPUModel == h.Values.CPUModel, o.Values.CPUModel == "")},
		Finding{Name: "mounts", Detail: mounts(o, h, own)},
		Finding{Name: "network", Detail: network(o, h, own)},
		Finding{Name: "abstract sockets", Detail: abstract(o, h, own)},
	)
}

func bootID(o *Observation, own bool) string {
	switch {
	case o.BootID == "":
		return "hidden"
	case own:
		return "its own"
	default:
		return "the host's"
	}
}

func userID(o *Observation, own bool) string {
	who := fmt.Sprintf("%d", o.UID)
	if own {
		return who + ", of its own kernel"
	}
	for _, line := range o.UIDMap {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		inside, err1 := strconv.ParseInt(f[0], 10, 64)
		outside, err2 := strconv.ParseInt(f[1], 10, 64)
		count, err3 := strconv.ParseInt(f[2], 10, 64)
		uid := int64(o.UID)
		if err1 == nil && err2 == nil && err3 == nil && uid >= inside && uid-inside < count {
			return fmt.Sprintf("%s, on the host %d", who, outside+uid-inside)
		}
	}
	return who + ", not mapped"
}

func countCaps(hex string) string {
	n, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return "?"
	}
	return strconv.Itoa(bits.OnesCount64(n))
}

func seccomp(o *Observation) string {
	mode := map[int]string{0: "off", 1: "strict", 2: "filter"}[o.Seccomp]
	if mode == "" {
		mode = strconv.Itoa(o.Seccomp)
	}
	if o.NoNewPrivs {
		mode += ", no_new_privs"
	}
	return mode
}

func walk(w Walk) string {
	s := fmt.Sprintf("%d of %d files", w.Writable, w.Files)
	if w.Truncated {
		s = "at least " + s
	}
	return s
}

func same(equal, hidden bool) string {
	switch {
	case hidden:
		return "hidden"
	case equal:
		return "same as the host's"
	default:
		return "differs"
	}
}

// mounts counts the file systems of the side that the host has mounted too.
// Device numbers of another kernel say nothing about this one's.
func mounts(o *Observation, h HostFacts, own bool) string {
	if own {
		return fmt.Sprintf("%d, of its own kernel", len(o.Values.Mounts))
	}
	host := map[string]bool{}
	for _, m := range h.Values.Mounts {
		host[m] = true
	}
	n := 0
	for _, m := range o.Values.Mounts {
		if host[m] {
			n++
		}
	}
	return fmt.Sprintf("%d, %d of them the host's", len(o.Values.Mounts), n)
}

// hostNetwork says whether the side has the host's network namespace. Numbers of
// namespaces are a kernel's own.
func hostNetwork(o *Observation, h HostFacts, own bool) bool {
	return !own && o.Network.Namespace != "" && o.Network.Namespace == h.Network.Namespace
}

func network(o *Observation, h HostFacts, own bool) string {
	whose := "its own: "
	if hostNetwork(o, h, own) {
		whose = "the host's: "
	}
	if len(o.Network.Interfaces) == 0 {
		return whose + "nothing"
	}
	text := strings.Join(o.Network.Interfaces, ", ")
	if len(text) > maxText { // as the rest of what a side says
		text = fmt.Sprintf("%d interfaces", len(o.Network.Interfaces))
	}
	return whose + text
}

func abstract(o *Observation, h HostFacts, own bool) string {
	text := strconv.Itoa(o.Network.Abstract)
	if hostNetwork(o, h, own) {
		text += ", the host's"
	}
	return text
}

func abs(n int64) int64 {
	if n < 0 {
		return -n
	}
	return n
}
