package bootreport

import (
	"strings"
	"testing"

	"github.com/duplex-run/duplex/bootreport/klog"
	"github.com/duplex-run/duplex/compare"
	"github.com/duplex-run/duplex/internal/workload"
)

const ms = 1e6

// plain is a boot of a second that no rule has anything to say of: what each rule
// looks at is there, and too little.
func plain() *facts {
	return &facts{
		doc: &Document{
			TotalNs: 1000 * ms, End: "first_byte", FaultNs: 1000, ExitNs: 1000, KVM: workload.KVM{Exits: 9000, MemoryFaults: 5000},
			Boots: []Boot{
				{Kind: First, PhasesNs: map[string]int64{"first_byte": 1009 * ms}, Faults: workload.Faults{Major: 1}, ReadBytes: 4096},
				{Kind: Observed, PhasesNs: map[string]int64{"first_byte": 1000 * ms},
					Bytes: map[string]int64{"kernel": 1 << 20, "initrd": 1 << 20}, Memory: map[string]int64{"guest_rss": 9 << 20}},
				{Kind: Again, PhasesNs: map[string]int64{"first_byte": 1000 * ms}},
			},
			Spans: []Span{
				{Name: phases["loaded"].name, EndNs: 9 * ms, Clock: HostClock, Faults: &workload.Faults{Minor: 9000}},
				{Name: "guest kernel", Group: GroupKernel, Clock: HostClock, KVM: &workload.KVM{Exits: 1000, Halts: 7, IdleNs: 9 * ms}},
				{Name: "load a.ko", Group: GroupAgent, Depth: 1, StartNs: 20 * ms, EndNs: 29 * ms, Clock: HostClock},
				{Name: "learn what to run", Group: GroupAgent, Depth: 1, StartNs: 29 * ms, EndNs: 38 * ms, Clock: HostClock},
			},
			Kernel: Kernel{
				Initcalls: []Call{{Name: "inet_init", TookNs: 9 * ms}},
				Gaps:      []Gap{{TookNs: 9 * ms, After: "ftrace: allocating 1 entries", Before: "b"}},
			},
			Exits: []Exits{{Device: "blk0", Exits: 10, HostNs: 9 * ms}, {Device: "serial", Exits: 199, Writes: 199, HostNs: 50 * ms}, {Device: "marks", Exits: 9, HostNs: 90 * ms}},
		},
		log: klog.Parse([]byte("6,0,1,-;mem auto-init: stack:all(zero), heap alloc:on, heap free:off\n" +
			"6,1,1000,-;Trying to unpack rootfs image as initramfs...\n6,2,10000,-;Freeing initrd memory: 1024K\n")),
		clearNs: ms,
	}
}

func TestNothingToSay(t *testing.T) {
	if got := plain().advise(); len(got) != 0 {
		t.Errorf("advice %+v for a boot that needs none", got)
	}
}

func TestRules(t *testing.T) {
	tests := map[string]struct {
		change func(*facts)
		ns     int64
		figure string // what the figure has to name
	}{
		"loading":   {func(f *facts) { f.doc.Spans[0].EndNs = 10 * ms }, 10 * ms, "1.00 MiB of kernel and 1.00 MiB of initramfs in 10.0 ms"},
		"initramfs": {func(f *facts) { f.log.Lines[2].At = 12 * ms }, 11 * ms, "1.00 MiB"},
		"modules": {func(f *facts) {
			f.doc.Spans = append(f.doc.Spans, Span{Name: "load b.ko", Group: GroupAgent, Depth: 1, EndNs: 3 * ms})
		}, 12 * ms, "2 modules"},
		"initcall":       {func(f *facts) { f.doc.Kernel.Initcalls[0].TookNs = 30 * ms }, 30 * ms, "initcall inet_init, while the kernel also unpacked the initramfs"},
		"gap":            {func(f *facts) { f.doc.Kernel.Gaps[0].TookNs = 20 * ms }, 20 * ms, `"ftrace: allocating 1 entries" to "b"`},
		"serial console": {func(f *facts) { f.doc.Exits[1].Writes, f.doc.Exits[1].Exits = 200, 400 }, 50 * ms, "400 exits at 125 us"},
		"exits":          {func(f *facts) { f.doc.Exits[0].HostNs = 10 * ms }, 10 * ms, "10 exits of blk0 at 1.00 ms"},
		"page faults":    {func(f *facts) { f.doc.Spans[0].Faults.Minor = 10000 }, 10 * ms, "10000 page faults of the monitor, guest memory included, at 1.00 us"},
		"memory clearing": {func(f *facts) { f.doc.Boots[1].Memory["guest_rss"] = 20 << 20 }, 20 * ms,
			"20.0 MiB of guest memory touched, cleared once at 1.00 ms a MiB"},
		"cold cache": {func(f *facts) { f.doc.Boots[0].PhasesNs["first_byte"] = 1500 * ms }, 500 * ms,
			"1 major page faults against 0, 4.00 KiB read from disk against 0 B"},
		"waiting for the host": {func(f *facts) { f.doc.Spans[3].EndNs = 60 * ms }, 31 * ms, "learn what to run"},
		"kvm exits":            {func(f *facts) { f.doc.KVM.Exits, f.doc.KVM.Halts = 20500, 500 }, 20 * ms, "20000 exits, without halts, of them 5000 for memory"},
		"idle":                 {func(f *facts) { f.doc.Spans[1].KVM.IdleNs = 10 * ms }, 10 * ms, "7 halts"},
	}
	for rule, tt := range tests {
		t.Run(rule, func(t *testing.T) {
			f := plain()
			tt.change(f)
			got := f.advise()
			if len(got) != 1 || got[0].Rule != rule || got[0].Ns != tt.ns || !strings.Contains(got[0].Figure, tt.figure) || got[0].Text == "" {
				t.Errorf("got %+v, want %s of %d ns with %q", got, rule, tt.ns, tt.figure)
			}
		})
	}
	if len(tests) != len(rules) {
		t.Errorf("%d rules, %d tested", len(rules), len(tests))
	}
}

// What would be advice, but does not apply.
func TestRulesThatDoNotApply(t *testing.T) {
	for name, change := range map[string]func(*facts){
		"the memory is not cleared": func(f *facts) {
			f.doc.Boots[1].Memory["guest_rss"], f.log.Lines[0].Text = 20<<20, "mem auto-init: stack:all(zero), heap alloc:off, heap free:off"
		},
		"no initramfs":         func(f *facts) { f.log.Lines[2].At, f.doc.Boots[1].Bytes["initrd"] = 50*ms, 0 },
		"unpacking has no end": func(f *facts) { f.log.Lines = f.log.Lines[:2] },
		"a module's initcall":  func(f *facts) { f.doc.Kernel.Initcalls[0] = Call{Owner: "module a", TookNs: 30 * ms} },
		"slow, not from a disk": func(f *facts) {
			f.doc.Boots[0] = Boot{Kind: First, PhasesNs: map[string]int64{"first_byte": 1500 * ms}}
		},
		"a clock of instructions": func(f *facts) {
			f.doc.Boots[0].PhasesNs["first_byte"], f.doc.Host.Lab = 1500*ms, &compare.Lab{Deterministic: true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := plain()
			change(f)
			if got := f.advise(); len(got) != 0 {
				t.Errorf("advice %+v", got)
			}
		})
	}
}

// What is said of a gap depends on the lines around it.
func TestCauses(t *testing.T) {
	for _, tt := range []struct{ after, before, want string }{
		{"ftrace: allocating 37697 entries in 148 pages", "ftrace: allocated 148 pages", "CONFIG_FUNCTION_TRACER"},
		{"On node 0, zone DMA32: 1 pages in unavailable ranges", "IOAPIC[0]: apic_id 0", "map of memory"},
		{"rcu: Adjusting geometry for rcu_fanout_leaf=16", "NR_IRQS: 524544", "trace events"},
		{"rcu: Adjusting geometry for rcu_fanout_leaf=16", "something else", "not known"},
		{"clocksource: refined-jiffies: mask: 0xffffffff", "setup_percpu: NR_CPUS:8192", "CONFIG_UNWINDER_ORC"},
		{"initcall balloon_wait_finish+0x0/0xed returned 0", "Freeing unused decrypted memory: 2036K", "CONFIG_KPROBES"},
		{"a line of another kernel", "and another", "not known"},
	} {
		if got := cause(&Gap{After: tt.after, Before: tt.before}); !strings.Contains(got, tt.want) {
			t.Errorf("%s .. %s: %q, want %q", tt.after, tt.before, got, tt.want)
		}
	}
}

func TestTicks(t *testing.T) {
	f := plain()
	f.log = klog.Parse([]byte("6,0,5000,-;clocksource: Switched to clocksource kvm-clock\n"))
	f.doc.Kernel.Initcalls = []Call{{Name: "default_bdi_init", AtNs: 4 * ms, TookNs: 40 * ms}, {Name: "inet_init", AtNs: 6 * ms, TookNs: 30 * ms}}
	got := f.advise()
	if len(got) != 2 || !strings.Contains(got[0].Figure, "ticks") || strings.Contains(got[1].Figure, "ticks") {
		t.Errorf("%+v", got)
	}
}

func TestAdviceIsSortedAndShort(t *testing.T) {
	f := plain()
	f.doc.Kernel.Initcalls = nil
	for i := range 40 {
		f.doc.Kernel.Initcalls = append(f.doc.Kernel.Initcalls, Call{Name: "x", TookNs: int64(100-i) * ms})
		f.doc.Exits = append(f.doc.Exits, Exits{Device: "net", Exits: 1, HostNs: uint64(20+i) * ms})
	}
	got := f.advise()
	calls := 0
	for i, a := range got {
		if i > 0 && a.Ns > got[i-1].Ns {
			t.Errorf("%d ns after %d", a.Ns, got[i-1].Ns)
		}
		if a.Rule == "initcall" {
			calls++
		}
	}
	if len(got) != maxAdvice || calls != perRule {
		t.Errorf("%d pieces of advice, %d of them initcalls", len(got), calls)
	}
}
