package bootbench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/duplex-run/duplex/compare/stats"
)

// Tolerance is how far a boot may be above its budget.
const Tolerance = 0.02

// tick is a tick of the lab's kernel in instructions, 4 ms: the byte of a bare boot
// may reach the one who waits for it with the next one. It is more than Tolerance of
// the shortest boots only.
const tick = 2_000_000

// instructionNs is the time of an instruction in a deterministic lab.
const instructionNs = 2

// Budget is what duplex's boots may cost, by kernel. It is kept in a file.
type Budget struct {
	// Kernels are the budgets by the kernel's name in `duplex kernel ls`, which
	// holds its version.
	Kernels map[string]Instructions `json:"kernels"`
	// Ratio is what holds for a kernel that is not among them: the bare boot, as a
	// multiple of QEMU's in the same lab.
	Ratio float64 `json:"ratio_to_qemu"`
}

// Instructions are the budget of one kernel: instructions of the deterministic lab
// from exec to user space (Bare), and to the workload (Image).
type Instructions struct {
	Bare  int64 `json:"bare"`
	Image int64 `json:"image"`
}

// of is the budget for a case.
func (i Instructions) of(c Case) int64 {
	if c.What == Bare {
		return i.Bare
	}
	return i.Image
}

// ParseBudget reads the file's bytes.
func ParseBudget(data []byte) (*Budget, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var b Budget
	if err := dec.Decode(&b); err != nil {
		return nil, fmt.Errorf("read the boot budget: %w", err)
	}
	for name, i := range b.Kernels {
		if i.Bare <= 0 || i.Image <= 0 {
			return nil, fmt.Errorf("read the boot budget: kernel %s has no number", name)
		}
	}
	if b.Ratio <= 0 {
		return nil, errors.New("read the boot budget: no ratio_to_qemu")
	}
	return &b, nil
}

// Cases are what has to be measured to judge the kernel with a name: QEMU as well
// when it has no budget.
func (b *Budget) Cases(k Kernel, name string) []Case {
	list := []Case{{Bare, Duplex, k}, {Image, Duplex, k}}
	if _, ok := b.Kernels[name]; !ok {
		list = append(list, Case{Bare, QEMU, k})
	}
	return list
}

// ErrExceeded is wrapped by what Judge returns of a boot that got slower.
var ErrExceeded = errors.New("duplex boots slower than its budget")

// Judge says on w how the boots of a kernel compare with the budget. The error
// wraps ErrExceeded, or says what was not measured.
func (b *Budget) Judge(w io.Writer, k Kernel, name string, records []Record) error {
	budget, ok := b.Kernels[name]
	if !ok {
		_, _ = fmt.Fprintf(w, "boot budget: kernel %s has no budget of its own (%s have).\n"+
			"  It is held against QEMU's boot of it instead. `make boot-budget` adds it to the file.\n", name, b.names())
		return b.judgeRatio(w, k, name, records)
	}
	var errs error
	for _, c := range []Case{{Bare, Duplex, k}, {Image, Duplex, k}} {
		got, err := instructions(records, c)
		if err != nil {
			return err
		}
		over := float64(got)/float64(budget.of(c)) - 1
		_, _ = fmt.Fprintf(w, "boot budget: %s, %s: %s, %+.2f%% of the budget of %s\n", name, c.What, millions(got), 100*over, millions(budget.of(c)))
		switch {
		case over > Tolerance && (c.What != Bare || got-budget.of(c) > tick+tick/8):
			errs = errors.Join(errs, fmt.Errorf("%w: %s, %s: %d instructions, %.2f%% above %d", ErrExceeded, name, c.What, got, 100*over, budget.of(c)))
		case over < -Tolerance:
			_, _ = fmt.Fprintln(w, "  It got quicker: `make boot-budget` lowers the budget, so that it stays so.")
		}
	}
	return errs
}

func (b *Budget) judgeRatio(w io.Writer, k Kernel, name string, records []Record) error {
	ours, err := instructions(records, Case{Bare, Duplex, k})
	if err != nil {
		return err
	}
	theirs, err := instructions(records, Case{Bare, QEMU, k})
	if err != nil {
		return err
	}
	ratio := float64(ours) / float64(theirs)
	_, _ = fmt.Fprintf(w, "boot budget: %s, bare: %s, %.3f of QEMU's %s; at most %.3f is allowed\n", name, millions(ours), ratio, millions(theirs), b.Ratio*(1+Tolerance))
	if ratio > b.Ratio*(1+Tolerance) {
		return fmt.Errorf("%w: %s, bare: %.3f of QEMU's instructions, more than %.3f", ErrExceeded, name, ratio, b.Ratio)
	}
	return nil
}

// Set makes what was measured the kernel's budget, and the ratio to QEMU that of
// the distribution's kernel, where QEMU was measured.
func (b *Budget) Set(k Kernel, name string, records []Record) error {
	var i Instructions
	var err, ierr error
	i.Bare, err = instructions(records, Case{Bare, Duplex, k})
	i.Image, ierr = instructions(records, Case{Image, Duplex, k})
	if err = errors.Join(err, ierr); err != nil {
		return err
	}
	if b.Kernels == nil {
		b.Kernels = map[string]Instructions{}
	}
	b.Kernels[name] = i
	if theirs, err := instructions(records, Case{Bare, QEMU, k}); err == nil && k == Distribution {
		b.Ratio = float64(i.Bare*1000/theirs+1) / 1000
	}
	return nil
}

// Encode is the file's bytes.
func (b *Budget) Encode() ([]byte, error) {
	data, err := json.MarshalIndent(b, "", "  ")
	return append(data, '\n'), err
}

func (b *Budget) names() string {
	var names []string
	for n := range b.Kernels {
		names = append(names, n)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// instructions is the median of a case.
func instructions(records []Record, c Case) (int64, error) {
	t := Times(records, c, c.End())
	if len(t) == 0 {
		return 0, fmt.Errorf("no boot of %s was measured", c.Name())
	}
	return int64(stats.Median(t)) / instructionNs, nil
}

func millions(n int64) string { return fmt.Sprintf("%.2f million instructions", float64(n)/1e6) }
