package compare

import (
	"maps"
	"slices"

	"github.com/duplex-run/duplex/compare/stats"
	"github.com/duplex-run/duplex/internal/workload"
)

// Kinds of metric.
const (
	kindReached = "reached"
	kindStep    = "step"
	kindCPU     = "cpu"
	kindMemory  = "memory"
	kindExits   = "exits"
)

// quantity says how to take one number from a run; ok is false when it has none.
type quantity struct {
	name, kind, unit string
	of               func(*Sample) (v float64, ok bool)
	// alike says that the quantity means the same on both sides.
	alike bool
}

// summarise fills doc.Summary from doc.Runs.
func summarise(doc *Document) {
	sum := &doc.Summary
	sum.Interrupted = len(doc.Runs) < len(doc.Settings.Order)
	sum.Failed = make([]int, len(doc.Settings.Sides))
	good := make([][]*Sample, len(doc.Settings.Sides))
	for i := range doc.Runs {
		r := &doc.Runs[i]
		side := doc.Settings.Order[r.Order]
		if r.Exit.Failed != "" {
			sum.Failed[side]++
			continue
		}
		good[side] = append(good[side], r)
	}
	sum.SameOutput = sameOutput(slices.Concat(good...))
	sum.Metrics = []Metric{}
	for _, q := range quantities(doc.Runs) {
		if m, ok := measure(q, good, doc.Settings); ok {
			sum.Metrics = append(sum.Metrics, m)
		}
	}
}

func sameOutput(runs []*Sample) bool {
	for _, r := range runs {
		if r.Exit.StdoutSHA256 != runs[0].Exit.StdoutSHA256 {
			return false
		}
	}
	return len(runs) > 0
}

// quantities lists every quantity, in the order of the report.
func quantities(runs []Sample) []quantity {
	var out []quantity
	for p := workload.PhaseImage; p < workload.NumPhases; p++ {
		out = append(out, quantity{name: p.String(), kind: kindReached, unit: "ns", of: reached(p), alike: true})
	}
	for p := workload.PhaseImage; p < workload.NumPhases; p++ {
		out = append(out, quantity{name: p.String(), kind: kindStep, unit: "ns", of: step(p)})
	}
	out = append(out, quantity{name: "cpu", kind: kindCPU, unit: "ns", alike: true, of: func(r *Sample) (float64, bool) {
		return float64(r.CPUNs), true
	}})
	memory, exits := map[string]bool{}, map[string]bool{}
	for _, r := range runs {
		for name := range r.Memory {
			memory[name] = true
		}
		for name := range r.Exits {
			exits[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(memory)) {
		out = append(out, quantity{name: name, kind: kindMemory, unit: "bytes", of: func(r *Sample) (float64, bool) {
			v, ok := r.Memory[name]
			return float64(v), ok
		}})
	}
	for _, name := range slices.Sorted(maps.Keys(exits)) {
		out = append(out, quantity{name: name, kind: kindExits, unit: "count", of: func(r *Sample) (float64, bool) {
			return float64(r.Exits[name]), r.Exits != nil
		}})
	}
	return out
}

func reached(p workload.Phase) func(*Sample) (float64, bool) {
	return func(r *Sample) (float64, bool) {
		ns, ok := r.PhasesNs[p.String()]
		return float64(ns), ok
	}
}

// step is the time since the last phase before p that the run passed. The first
// byte may be read only after the exit is known: then it was not before it.
func step(p workload.Phase) func(*Sample) (float64, bool) {
	return func(r *Sample) (float64, bool) {
		ns, ok := r.PhasesNs[p.String()]
		if !ok {
			return 0, false
		}
		for before := p - 1; before > workload.PhaseExec; before-- {
			if at, ok := r.PhasesNs[before.String()]; ok && at <= ns {
				return float64(ns - at), true
			}
		}
		return float64(ns), true
	}
}

func measure(q quantity, good [][]*Sample, set Settings) (Metric, bool) {
	m := Metric{Name: q.name, Kind: q.kind, Unit: q.unit, Smaller: -1, Sides: make([]*Side, len(good))}
	values, any := make([][]float64, len(good)), false
	for side, runs := range good {
		var orders []int
		for _, r := range runs {
			if v, ok := q.of(r); ok {
				values[side] = append(values[side], v)
				orders = append(orders, r.Order)
			}
		}
		if len(values[side]) > 0 {
			m.Sides[side], any = summariseSide(values[side], orders), true
		}
	}
	var pairs []Pair
	for a := range m.Sides {
		for b := a + 1; b < len(m.Sides); b++ {
			if m.Sides[a] != nil && m.Sides[b] != nil && q.comparable(set.Sides[a], set.Sides[b]) {
				pairs = append(pairs, newPair(a, b, stats.Compare(values[a], values[b], set.Seed)))
			}
		}
	}
	if len(pairs) > 0 && pairs[0].A == 0 && pairs[0].B == 1 {
		m.Difference, m.Smaller = &pairs[0].Difference, pairs[0].Smaller
	}
	if len(m.Sides) > 2 {
		m.Pairs = pairs
	}
	return m, any
}

func newPair(a, b int, d stats.Difference) Pair {
	return Pair{A: a, B: b, Difference: d, Smaller: map[int]int{-1: a, 0: -1, 1: b}[d.Smaller()]}
}

// comparable says whether the quantity means the same in both columns.
func (q quantity) comparable(a, b Column) bool {
	return q.alike || a == b || q.kind == kindExits && a.Isolation() == b.Isolation()
}

func summariseSide(values []float64, orders []int) *Side {
	s := &Side{N: len(values), Median: stats.Median(values), Min: slices.Min(values), Max: slices.Max(values)}
	if v, ok := stats.P99(values); ok {
		s.P99 = &v
	}
	for _, i := range stats.FarOut(values) {
		s.FarOut = append(s.FarOut, orders[i])
	}
	return s
}
