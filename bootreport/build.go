package bootreport

import (
	"fmt"
	"io"
	"syscall"

	"github.com/duplex-run/duplex/bootreport/klog"
	"github.com/duplex-run/duplex/compare"
	"github.com/duplex-run/duplex/internal/workload"
)

// made is a boot that was made.
type made struct {
	kind  string
	p     *compare.Process
	first int64 // workload.Now at the first byte of output; 0 for none
}

// boot is what a document keeps of it.
func (m *made) boot() Boot {
	b := Boot{Kind: m.kind, PhasesNs: map[string]int64{}, CPUNs: m.p.CPUNs(), Ended: m.p.Report.Exit.String(),
		Bytes: m.p.Report.Usage.Bytes, Memory: m.p.Report.Usage.Memory, Exits: m.p.Report.Usage.Exits}
	for name, at := range m.p.Report.Stamps {
		if at >= m.p.Begin && at <= m.p.End {
			b.PhasesNs[name] = at - m.p.Begin
		}
	}
	delete(b.PhasesNs, workload.PhaseFirstByte.String())
	if m.first != 0 {
		b.PhasesNs[workload.PhaseFirstByte.String()] = m.first - m.p.Begin
	}
	b.PhasesNs[workload.PhaseTornDown.String()] = m.p.End - m.p.Begin
	if ru, ok := m.p.State.SysUsage().(*syscall.Rusage); ok {
		b.Minor, b.Major = ru.Minflt, ru.Majflt
		b.ReadBytes = ru.Inblock * 512 // getrusage(2) counts in those
	}
	return b
}

// observation is what the observed boot left, beside its Boot.
type observation struct {
	begin int64 // workload.Now at exec
	steps []workload.Step
	trace io.Reader
	log   []byte
	// clearNs is what clearing a MiB of memory takes on this host.
	clearNs int64
}

// build completes a document that has its boots.
func build(doc *Document, o observation) error {
	w := &waterfall{begin: o.begin, steps: o.steps, log: klog.Parse(o.log), at: doc.boot(Observed).PhasesNs, warm: doc.Warm}
	w.end = workload.PhaseFirstByte.String()
	if _, ok := w.at[w.end]; !ok {
		w.end = workload.PhaseExited.String()
	}
	if _, ok := w.at[w.end]; !ok {
		return fmt.Errorf("the observed boot has no end (%s)", doc.boot(Observed).Ended)
	}
	doc.Schema, doc.End, doc.TotalNs, doc.ExecAt = Schema, w.end, w.at[w.end], w.begin
	doc.Spans = w.spans()
	doc.Kernel = w.summary()
	for _, s := range w.steps {
		if s.Name == workload.PhaseWorkload.String() {
			doc.KVM = s.KVM
		}
	}
	var err error
	if doc.Exits, err = countExits(o.trace, w.begin, w.begin+doc.TotalNs, doc.Spans); err != nil {
		return err
	}
	doc.Notes = notes(w, doc)
	doc.Advice = (&facts{doc: doc, log: w.log, clearNs: o.clearNs}).advise()
	return nil
}

// notes say what is missing or uncertain.
func notes(w *waterfall, doc *Document) []string {
	var out []string
	note := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	k := &doc.Kernel
	switch {
	case doc.Warm:
		note("The machine is restored, so there is no log of its kernel, and its agent's steps are not told apart. The first run may have made the snapshot.")
	case k.Lines == 0:
		note("The guest's kernel gave no log (it may be built without CONFIG_PRINTK), so what it and the agent did is not told apart.")
	case k.Count == 0:
		note("The guest's kernel logs no initcalls (its initcall_debug needs CONFIG_PRINTK and room in its log).")
	}
	if k.Lost > 0 {
		note("%d lines of the guest's log were overwritten before they were read.", k.Lost)
	}
	if k.Bad > 0 {
		note("%d lines of the guest's log make no sense.", k.Bad)
	}
	if ended := doc.boot(Observed).Ended; ended != "exit status 0" && ended != "killed by signal 9" { // that is ours
		note("The command ended with: %s.", ended)
	}
	if zero, ok := w.zero(); ok {
		if at := w.at["entered"]; zero < at {
			note("The guest's log is %s longer than what the host saw of its kernel: its clock runs ahead. What lies before the first entry is cut off.", took(at-zero))
		}
	}
	return out
}
