// Package probe finds out what a host's KVM can do by running tiny guests on it.
//
// That /dev/kvm is there, answers, and has every capability does not mean that
// it can boot a stock kernel: a paravirtual KVM, which exists on hosts without
// virtualisation extensions, interprets such a kernel and cannot deliver events
// to it. So Run makes small machines that do what a kernel does on its first
// steps, and judges by what happens. Each step has a bound on its time; the whole
// takes milliseconds on hardware, some 0.3 s where KVM is a slow interpreter, and
// never more than some seconds.
//
// guest.go is the guest's code, machine.go the machine it runs on.
package probe

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/duplex-run/duplex/vmm/kvm"
)

// Step is one thing the probe's guest tried.
type Step struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // what happened, or why it was not tried
}

// Names of the steps, in the order they are taken.
const (
	LongMode   = "long_mode"
	Breakpoint = "breakpoint"
	CMPXCHG16B = "cmpxchg16b"
	Timer      = "timer_interrupt"
	Speed      = "speed"
)

// Report is what Run found. A field further down is filled in only when those
// above it leave hope.
type Report struct {
	Present    bool     `json:"present"`              // /dev/kvm exists
	Permission bool     `json:"permission"`           // and we may open it
	APIVersion int      `json:"api_version"`          // 12, or KVM is none we know
	Missing    []string `json:"missing_capabilities"` // KVM_CAP names, never nil
	Steps      []Step   `json:"steps"`                // never nil
	MIPS       float64  `json:"mips"`                 // guest instructions a second / 10^6, of a two-instruction loop

	BootsStockKernel bool   `json:"boots_stock_kernel"`
	Why              string `json:"why"`              // the verdict, for people
	Remedy           string `json:"remedy,omitempty"` // what to do about a bad one
}

const (
	// stepTime bounds a step. A working KVM takes microseconds; in an emulated
	// machine on a busy host it has taken 140 ms.
	stepTime = 2 * time.Second
	// speedTime bounds the speed step, which has no end of its own on a slow KVM.
	speedTime = 250 * time.Millisecond
	// minMIPS is the speed below which a kernel of about 10^9 instructions does
	// not boot in any time worth waiting for. Hardware makes thousands, KVM in an
	// emulated machine a hundred or more, an interpreter one.
	minMIPS = 10
)

// Run probes the host's KVM. Whatever it finds is in the Report; an error means
// that finding out failed.
func Run() (Report, error) {
	r := Report{Missing: []string{}, Steps: []Step{}}
	sys, err := kvm.Open()
	if err != nil {
		return r.unopened(err)
	}
	r.Present, r.Permission = true, true
	err = r.examine(sys)
	if err = errors.Join(err, sys.Close()); err != nil {
		return r, fmt.Errorf("probe %s: %w", kvm.Path, err)
	}
	return r, nil
}

// unopened judges an error of kvm.Open.
func (r Report) unopened(err error) (Report, error) {
	r.Present = !errors.Is(err, os.ErrNotExist)
	r.Why, r.Remedy = err.Error(), kvm.Remedy(err)
	if r.Remedy == "" {
		r.Remedy = "Ask the host's administrator: KVM is there but cannot be opened."
	}
	return r, nil
}

func (r *Report) examine(sys *kvm.System) error {
	var err error
	if r.APIVersion, err = sys.APIVersion(); err != nil {
		return err
	}
	missing, err := sys.Missing()
	if err != nil {
		return err
	}
	for _, c := range missing {
		r.Missing = append(r.Missing, c.String())
	}
	if r.APIVersion != kvm.APIVersion || len(missing) > 0 {
		r.Why = fmt.Sprintf("KVM API version %d lacks %s", r.APIVersion, strings.Join(r.Missing, ", "))
		r.Remedy = "Use a newer host kernel."
		return nil
	}
	if err := r.takeSteps(sys); err != nil {
		return err
	}
	r.judge()
	return nil
}

// takeSteps runs each step on a machine of its own, so that what one breaks
// does not hide what the next can do.
func (r *Report) takeSteps(sys *kvm.System) error {
	for _, s := range []struct {
		name  string
		entry uint64
	}{
		{LongMode, codeDone}, {Breakpoint, codeBreakpoint}, {CMPXCHG16B, codeCMPXCHG}, {Timer, codeTimer},
	} {
		if len(r.Steps) > 0 && !r.Steps[0].OK {
			r.Steps = append(r.Steps, Step{Name: s.name, Detail: "not tried: the guest is not in long mode"})
			continue
		}
		step := Step{Name: s.name}
		var err error
		if step.OK, step.Detail, err = try(sys, s.entry); err != nil {
			return fmt.Errorf("step %s: %w", s.name, err)
		}
		r.Steps = append(r.Steps, step)
	}
	step := Step{Name: Speed, Detail: "not tried: the guest is not in long mode"}
	if r.Steps[0].OK {
		mips, failure, err := measure(sys)
		if err != nil {
			return fmt.Errorf("step %s: %w", Speed, err)
		}
		r.MIPS, step.OK, step.Detail = mips, mips >= minMIPS, fmt.Sprintf("%.1f million instructions a second", mips)
		if mips == 0 {
			step.Detail = failure
		}
	}
	r.Steps = append(r.Steps, step)
	return nil
}

var failures = map[string]string{
	LongMode:   "enter long mode",
	Breakpoint: "deliver exceptions to a guest",
	CMPXCHG16B: "execute lock cmpxchg16b",
	Timer:      "deliver interrupts to a guest",
	Speed:      "run a guest at a useful speed",
}

func (r *Report) judge() {
	var cannot []string
	for _, s := range r.Steps {
		if !s.OK {
			cannot = append(cannot, failures[s.Name])
		}
	}
	if len(cannot) == 0 {
		r.BootsStockKernel = true
		r.Why = fmt.Sprintf("guests run at %.0f million instructions a second and get their exceptions and interrupts", r.MIPS)
		return
	}
	if last := len(cannot) - 1; last > 0 {
		cannot[last] = "or " + cannot[last]
	}
	r.Why = "this KVM cannot " + strings.Join(cannot, ", ")
	if r.MIPS > 0 {
		r.Why += fmt.Sprintf(" (it runs %.1f million instructions a second)", r.MIPS)
	}
	r.Remedy = "Use the lab, or a host whose processor offers its virtualisation extensions (vmx or svm in /proc/cpuinfo)."
}
