package bootreport

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/duplex-run/duplex/bootreport/klog"
	"github.com/duplex-run/duplex/compare"
	"github.com/duplex-run/duplex/internal/workload"
)

// facts are what the rules look at.
type facts struct {
	doc *Document
	log *klog.Log
	// clearNs is what clearing a MiB of memory takes on this host.
	clearNs int64
}

// rules are tried one by one. Each says what its figure was computed from, and
// nothing when there is nothing to gain.
var rules = []func(*facts) []Advice{
	loading, unpacking, modules, initcalls, gaps, serialPort, devices, pageFaults, clearing, coldCache, waiting, idle, kvmExits,
}

const (
	// adviceShare of the whole boot is the least that is worth advice.
	adviceShare = 100
	maxAdvice   = 12
	// perRule bounds initcalls and gaps, of which there are many.
	perRule = 5
)

// worth says whether ns is a share of the boot worth naming.
func (f *facts) worth(ns int64) bool { return ns > 0 && ns*adviceShare >= f.doc.TotalNs }

// advise applies the rules; the largest figure comes first.
func (f *facts) advise() []Advice {
	out := []Advice{}
	for _, rule := range rules {
		out = append(out, rule(f)...)
	}
	slices.SortStableFunc(out, func(a, b Advice) int { return cmp.Compare(b.Ns, a.Ns) })
	return out[:min(len(out), maxAdvice)]
}

func (f *facts) boot(kind string) *Boot { return f.doc.boot(kind) }

// one is a list of a single piece of advice on the host's clock.
func one(rule string, ns int64, text, figure string) []Advice {
	return []Advice{{Rule: rule, Ns: ns, Clock: HostClock, Text: text, Figure: figure}}
}

// largeKernel is more than 'duplex kernel build --minimal' makes, in bytes: Debian's
// cloud kernel has 33 MiB, and a minimal one 9.
const largeKernel = 16 << 20

// loading: kernel and initramfs are put into guest memory before it runs.
func loading(f *facts) []Advice {
	var ns int64
	for _, s := range f.doc.Spans {
		if s.Depth == 0 && s.Name == phases["loaded"].name {
			ns += s.Took()
		}
	}
	b := f.boot(Observed).Bytes
	if f.doc.Warm || !f.worth(ns) || b["kernel"]+b["initrd"] == 0 {
		return nil
	}
	text := "A smaller kernel and initramfs are in place sooner."
	if b["kernel"] >= largeKernel {
		text = "A smaller kernel and initramfs are in place sooner; 'duplex kernel build --minimal' makes one."
	}
	return one("loading", ns, text,
		fmt.Sprintf("%s of kernel and %s of initramfs in %s", size(b["kernel"]), size(b["initrd"]), took(ns)))
}

// unpacking: the kernel makes a file system of the initramfs.
func unpacking(f *facts) []Advice {
	from, to := unpackTime(f.log)
	initrd := f.boot(Observed).Bytes["initrd"]
	if !f.worth(int64(to-from)) || initrd == 0 {
		return nil
	}
	a := one("initramfs", int64(to-from),
		"The kernel unpacks the initramfs; a kernel with everything built in ('duplex kernel build') needs a smaller one.",
		fmt.Sprintf("%s from the log's line that it begins to the one that it has ended; other work of the kernel may lie between", size(initrd)))
	a[0].Clock = GuestClock
	return a
}

// unpackTime is when the kernel was at the initramfs. It does so beside its
// initcalls (since 5.13), which on one CPU then take longer.
func unpackTime(log *klog.Log) (from, to time.Duration) {
	for _, l := range log.Lines {
		switch {
		case strings.HasPrefix(l.Text, "Trying to unpack rootfs image as initramfs"):
			from = l.At
		case strings.HasPrefix(l.Text, "Freeing initrd memory") && from > 0 && to == 0:
			to = l.At
		}
	}
	return from, max(from, to)
}

// modules: the agent loads what the kernel has not built in.
func modules(f *facts) []Advice {
	var ns int64
	n := 0
	for _, s := range f.doc.Spans {
		if s.Group == GroupAgent && s.Depth == 1 && strings.HasPrefix(s.Name, "load ") {
			ns += s.Took()
			n++
		}
	}
	if !f.worth(ns) {
		return nil
	}
	return one("modules", ns, "A kernel with its drivers built in loads no modules: 'duplex kernel build' makes one.",
		fmt.Sprintf("%d modules loaded one after the other", n))
}

// initcalls: the costliest, with what they belong to.
func initcalls(f *facts) []Advice {
	var out []Advice
	from, to := unpackTime(f.log)
	ticks := ticksUntil(f.log)
	for _, c := range f.doc.Kernel.Initcalls {
		if len(out) == perRule || !f.worth(c.TookNs) {
			break
		}
		if strings.HasPrefix(c.Owner, "module ") {
			continue // the rule about modules has them
		}
		a := Advice{Rule: "initcall", Ns: c.TookNs, Clock: GuestClock,
			Text: "What it belongs to is not known to duplex.", Figure: "initcall " + c.Name}
		if c.Owner != "" {
			a.Text = fmt.Sprintf("This part of the kernel: %s.", c.Owner)
		}
		if c.AtNs < int64(to) && c.AtNs+c.TookNs > int64(from) {
			a.Figure += ", while the kernel also unpacked the initramfs, which may be part of it"
		}
		if c.AtNs < int64(ticks) {
			a.Figure += ", by a clock that still moved in ticks: part of it may belong to others"
		}
		if p := partOf(c.Name); p != nil && p.option != "" {
			a.Text = fmt.Sprintf("A kernel without %s (%s) does not spend this; 'duplex kernel build' takes a configuration.", p.what, p.option)
		}
		out = append(out, a)
	}
	return out
}

// ticksUntil is when the kernel has left the clock that moves only with its timer's
// interrupt; 0 when the log does not say.
func ticksUntil(log *klog.Log) time.Duration {
	for _, l := range log.Lines {
		if strings.HasPrefix(l.Text, "clocksource: Switched to clocksource") {
			return l.At
		}
	}
	return 0
}

// causes are what the kernel does between two lines of its log that begin so, where
// its source tells (init/main.c, arch/x86/kernel/setup.c, mm/mm_init.c, of Linux 6.1
// to 6.12). An empty before is any line.
var causes = []struct{ after, before, what string }{
	{"ftrace: allocating", "", "It prepares every function for tracing (CONFIG_FUNCTION_TRACER)."},
	{"Initmem setup", "", "It sets up its map of memory: less memory takes less (--memory)."},
	{"On node", "", "It sets up its map of memory: less memory takes less (--memory)."},
	{"mem auto-init", "", "It hands all memory to its allocator: less memory takes less (--memory)."},
	{"x86/PAT", "printk: log_buf_len", "It maps all memory, and makes room for its log, which boot-report asked for."},
	{"clocksource: refined-jiffies", "setup_percpu", "It makes the table of its stack unwinder (CONFIG_UNWINDER_ORC)."},
	{"setup_percpu", "", "It sets up each CPU's data."},
	{"rcu:", "NR_IRQS", "It sets up RCU and all its trace events (CONFIG_FTRACE)."},
	{"x86/fpu", "Freeing SMP alternatives", "It patches its own code to suit the CPU."},
	{"initcall ", "Freeing unused", "It waits for initialisation that still runs, and forgets which functions of it could be traced (CONFIG_FUNCTION_TRACER, CONFIG_KPROBES)."},
	{"Freeing unused", "Freeing unused", "It gives back the memory of its initialisation."},
	{"Freeing unused", "Write protecting", "It gives back the memory of its initialisation."},
	{"Write protecting", "", "It protects its own code and data (CONFIG_STRICT_KERNEL_RWX)."},
	{"Loading compiled-in X.509", "", "It loads keys to check modules with (CONFIG_SYSTEM_TRUSTED_KEYRING)."},
}

// cause is what the kernel does in a gap.
func cause(g *Gap) string {
	for _, c := range causes {
		if strings.HasPrefix(g.After, c.after) && strings.HasPrefix(g.Before, c.before) {
			return c.what
		}
	}
	return "What the kernel does there is not known to duplex."
}

// gaps: time without a line of the log and without an initcall.
func gaps(f *facts) []Advice {
	var out []Advice
	for _, g := range f.doc.Kernel.Gaps {
		if len(out) == perRule || !f.worth(g.TookNs) {
			break
		}
		out = append(out, Advice{Rule: "gap", Ns: g.TookNs, Clock: GuestClock, Text: cause(&g),
			Figure: fmt.Sprintf("from the log's line %q to %q", short(g.After), short(g.Before))})
	}
	return out
}

// serialWrites is how many writes to the serial port are no longer just its
// set-up.
const serialWrites = 200

// serialPort: each character of the console is an exit.
func serialPort(f *facts) []Advice {
	for _, e := range f.doc.Exits {
		if e.Device != "serial" || e.Writes < serialWrites {
			continue
		}
		return one("serial console", int64(e.HostNs),
			"Each character the guest prints on its serial port is an exit or more: 'quiet' on the kernel's command line keeps it silent.",
			fmt.Sprintf("%d exits at %s in the monitor, the switches to and from the guest not counted", e.Exits, took(int64(e.HostNs/e.Exits))))
	}
	return nil
}

// devices: exits that took the monitor long.
func devices(f *facts) []Advice {
	var out []Advice
	for _, e := range f.doc.Exits {
		if e.Device == "serial" || e.Device == "marks" || e.Exits == 0 || !f.worth(int64(e.HostNs)) {
			continue
		}
		out = append(out, one("exits", int64(e.HostNs),
			"The guest waits while the monitor handles these; 'duplex trace' says which registers they are about.",
			fmt.Sprintf("%d exits of %s at %s in the monitor, the switches to and from the guest not counted", e.Exits, e.Device, took(int64(e.HostNs/e.Exits))))...)
	}
	return out
}

// pageFaults: memory that the host backs when it is first touched.
func pageFaults(f *facts) []Advice {
	var all workload.Faults
	for _, s := range f.doc.Spans {
		if s.Depth == 0 && s.Faults != nil {
			all.Minor += s.Faults.Minor
		}
	}
	ns := all.Minor * f.doc.FaultNs
	if !f.worth(ns) {
		return nil
	}
	return one("page faults", ns,
		"The host backs memory page by page as it is touched; huge pages ('always' in /sys/kernel/mm/transparent_hugepage/enabled) take up to 512 times fewer, a kernel that touches less takes fewer.",
		fmt.Sprintf("%d page faults of the monitor, guest memory included, at %s, measured on this host without a guest", all.Minor, took(f.doc.FaultNs)))
}

// clearing: a kernel that clears memory when it is allocated.
func clearing(f *facts) []Advice {
	on := slices.ContainsFunc(f.log.Lines, func(l klog.Line) bool {
		return strings.HasPrefix(l.Text, "mem auto-init:") && strings.Contains(l.Text, "heap alloc:on")
	})
	rss := f.boot(Observed).Memory["guest_rss"]
	ns := rss >> 20 * f.clearNs
	if !on || !f.worth(ns) {
		return nil
	}
	return one("memory clearing", ns,
		"The guest's kernel clears all memory it allocates although the host has done so: init_on_alloc=0 on its command line leaves it out, and what an attacker inside could make of old contents is then possible.",
		fmt.Sprintf("%s of guest memory touched, cleared once at %s a MiB, measured on this host", size(rss), took(f.clearNs)))
}

// coldCache: a first boot waits for the disk.
func coldCache(f *facts) []Advice {
	if l := f.doc.Host.Lab; l != nil && l.Deterministic {
		return nil // there, how long a disk takes is an arbitrary number
	}
	first, again := f.boot(First), f.boot(Again)
	ns := first.PhasesNs[f.doc.End] - again.PhasesNs[f.doc.End]
	if first.Major <= again.Major && first.ReadBytes <= again.ReadBytes || !f.worth(ns) {
		return nil
	}
	return one("cold cache", ns, "The first boot reads its files from the disk; a boot after it finds them in memory.",
		fmt.Sprintf("the first boot against the third: %d major page faults against %d, %s read from disk against %s",
			first.Major, again.Major, size(first.ReadBytes), size(again.ReadBytes)))
}

// waiting: the agent waits for the host's orders.
func waiting(f *facts) []Advice {
	for _, s := range f.doc.Spans {
		if s.Group == GroupAgent && s.Name == "learn what to run" && f.worth(s.Took()) {
			return one("waiting for the host", s.Took(),
				"The guest is up and waits until duplex has told it what to run: the host's side is what takes the time, or the guest's CPU is the host's only one.",
				"the agent's step "+s.Name)
		}
	}
	return nil
}

// idle: the guest has nothing to do but wait.
func idle(f *facts) []Advice {
	var out []Advice
	for _, s := range f.doc.Spans {
		if s.Depth > 0 || s.Group != GroupKernel && s.Group != GroupAgent || s.KVM == nil || !f.worth(s.KVM.IdleNs) {
			continue
		}
		out = append(out, one("idle", s.KVM.IdleNs, fmt.Sprintf("The guest waits for a timer, a device or the host while its %s is at work; what it waits for could come sooner, or not be waited for.",
			strings.TrimPrefix(s.Name, "guest ")), fmt.Sprintf("%d halts of the guest's CPUs, and how long KVM waited in them", s.KVM.Halts))...)
	}
	return out
}

// kvmExits: exits that KVM handles by itself.
func kvmExits(f *facts) []Advice {
	out := int64(0)
	for _, s := range f.doc.Spans {
		if s.Depth == 0 && (s.Group == GroupKernel || s.Group == GroupAgent) {
			out += int64(s.Exits)
		}
	}
	k := f.doc.KVM
	n := k.Exits - out - k.Halts
	if !f.worth(n * f.doc.ExitNs) {
		return nil
	}
	return one("kvm exits", n*f.doc.ExitNs,
		"The guest's exits that KVM handles without the monitor take at least this; a kernel that probes less, or memory in huge pages, has fewer.",
		fmt.Sprintf("%d exits, without halts, of them %d for memory and %d for interrupts of the host, at %s each, measured on this host with a guest's CPUID",
			n, k.MemoryFaults, k.Interrupts, took(f.doc.ExitNs)))
}

// took is a time as text, without false precision.
func took(ns int64) string { return compare.Quantity(float64(ns), "ns") }

// size is bytes as text.
func size(n int64) string { return compare.Quantity(float64(n), "bytes") }

// short is s, cut for a line of text.
func short(s string) string {
	const limit = 48
	if len(s) > limit {
		return s[:limit-3] + "..."
	}
	return s
}
