package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/hostcheck"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm/probe"
)

var doctorCommand = command{
	name:    "doctor",
	summary: "Say what this host can do, and what to do about what it cannot",
	run:     runDoctor,
}

// verdict says how one isolation runs here.
type verdict struct {
	// Runs is "native", "lab" or "no".
	Runs string `json:"runs"`
	Why  string `json:"why"`
}

type diagnosis struct {
	Checks  []hostcheck.Check              `json:"checks"`
	KVM     probe.Report                   `json:"kvm"`
	Verdict map[workload.Isolation]verdict `json:"verdict"`
}

func runDoctor(_ context.Context, a *app, args []string) error {
	fs := a.Flags()
	asJSON := fs.Bool("json", false, "print JSON")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return a.Usage("unexpected argument %q", fs.Arg(0))
	}
	d, err := diagnose()
	if err != nil {
		return err
	}
	if *asJSON {
		if err := cmdline.PrintJSON(a.Out, d); err != nil {
			return err
		}
	} else {
		a.printDiagnosis(d)
	}
	if d.Verdict[workload.VM].Runs != "native" && d.Verdict[workload.Container].Runs != "native" {
		return cmdline.Status(1)
	}
	return nil
}

func diagnose() (diagnosis, error) {
	report, err := probe.Run()
	if err != nil {
		return diagnosis{}, &workload.Error{Op: "probe KVM", Err: err}
	}
	container, lab := hostcheck.Container(), hostcheck.Lab()
	d := diagnosis{
		Checks: slices.Concat(kvmChecks(report), container, []hostcheck.Check{hostcheck.TUN(), lab}),
		KVM:    report,
		Verdict: map[workload.Isolation]verdict{
			workload.VM:        vmVerdict(report, lab),
			workload.Container: containerVerdict(container),
		},
	}
	return d, nil
}

func vmVerdict(r probe.Report, lab hostcheck.Check) verdict {
	switch {
	case r.BootsStockKernel:
		return verdict{"native", r.Why}
	case lab.State == hostcheck.OK:
		return verdict{"lab", r.Why}
	}
	return verdict{"no", r.Why + "; and no lab: " + lab.Detail}
}

func containerVerdict(checks []hostcheck.Check) verdict {
	for _, c := range checks {
		if c.State == hostcheck.Fail {
			return verdict{"no", c.Name + ": " + c.Detail}
		}
	}
	return verdict{"native", "namespaces, overlay and seccomp work here"}
}

// kvmChecks turns the probe's report into lines.
func kvmChecks(r probe.Report) []hostcheck.Check {
	state := func(good bool) hostcheck.State {
		if good {
			return hostcheck.OK
		}
		return hostcheck.Fail
	}
	checks := []hostcheck.Check{{Name: "kvm", State: state(r.BootsStockKernel), Detail: r.Why, Remedy: r.Remedy}}
	if !r.Present || !r.Permission {
		return checks
	}
	missing := "none missing"
	if len(r.Missing) > 0 {
		missing = "missing " + strings.Join(r.Missing, ", ")
	}
	checks = append(checks, hostcheck.Check{
		Name: "kvm api", State: state(r.APIVersion == 12 && len(r.Missing) == 0),
		Detail: fmt.Sprintf("version %d, capabilities: %s", r.APIVersion, missing),
		Remedy: "use a newer host kernel",
	})
	for _, s := range r.Steps {
		checks = append(checks, hostcheck.Check{Name: "kvm guest", State: state(s.OK), Detail: strings.ReplaceAll(s.Name, "_", " ") + ": " + s.Detail})
	}
	return checks
}

func (a *app) printDiagnosis(d diagnosis) {
	for _, c := range d.Checks {
		_, _ = fmt.Fprintf(a.Out, "%-5s %-16s %s\n", c.State, c.Name, c.Detail)
		if c.Remedy != "" && c.State != hostcheck.OK {
			_, _ = fmt.Fprintf(a.Out, "%22s -> %s\n", "", c.Remedy)
		}
	}
	for _, iso := range []workload.Isolation{workload.VM, workload.Container} {
		v := d.Verdict[iso]
		_, _ = fmt.Fprintf(a.Out, "%s: %s (%s)\n", map[workload.Isolation]string{workload.VM: "microVM", workload.Container: "container"}[iso], v.Runs, v.Why)
	}
}
