package compare

import (
	"fmt"
	"slices"
	"strings"

	"github.com/duplex-run/duplex/internal/workload"
)

// awaitedPhases are the moments a user waits for.
var awaitedPhases = []workload.Phase{workload.PhaseWorkload, workload.PhaseFirstByte, workload.PhaseTornDown}

// awaited are the metrics of those moments, and the CPU time.
func (r *reporter) awaited() []Metric {
	rows := slices.DeleteFunc(r.rows(kindReached), func(m Metric) bool {
		return !slices.ContainsFunc(awaitedPhases, func(p workload.Phase) bool { return m.Name == p.String() })
	})
	return append(rows, r.rows(kindCPU)...)
}

func (r *reporter) verdicts() {
	rows := r.awaited()
	if len(rows) > 0 {
		r.printf("\n")
	}
	for _, m := range rows {
		if l := r.verdict(m); l != "" {
			r.text(l)
		}
	}
	if r.doc.Summary.SameOutput {
		r.text("Every sample wrote the same bytes to stdout.")
	} else if len(r.rows(kindReached)) > 0 {
		r.text("The samples did not all write the same bytes to stdout.")
	}
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func (r *reporter) verdict(m Metric) string {
	d, name := m.Difference, sentence(title(m.Name))
	if len(r.names) > 2 {
		return r.smallestVerdict(m, name)
	}
	switch {
	case d == nil:
		return ""
	case !d.HasInterval:
		return fmt.Sprintf("%s: too few samples to say which is less.", name)
	case m.Smaller >= 0:
		return fmt.Sprintf("%s: %s is less, by %s (95%% interval %s, noise floor %s).", name, r.names[m.Smaller],
			quantityText(max(d.Diff, -d.Diff), m.Unit), intervalText(d.Low, d.High, m.Unit), quantityText(d.Floor, m.Unit))
	case d.Low <= 0 && d.High >= 0:
		return fmt.Sprintf("%s: no difference shown, the interval holds zero (%s).", name, intervalText(d.Low, d.High, m.Unit))
	default:
		return fmt.Sprintf("%s: no difference shown, %s is within the noise floor of %s.", name,
			signedText(d.Diff, m.Unit), quantityText(d.Floor, m.Unit))
	}
}

// smallestVerdict says which of more than two sides is the least.
func (r *reporter) smallestVerdict(m Metric, name string) string {
	pairs := m.pairs()
	switch side := m.smallest(); {
	case len(pairs) == 0:
		return ""
	case slices.ContainsFunc(pairs, func(p Pair) bool { return !p.Difference.HasInterval }):
		return fmt.Sprintf("%s: too few samples to say which is least.", name)
	case side < 0:
		return fmt.Sprintf("%s: none is shown to be the least.", name)
	default:
		return fmt.Sprintf("%s: %s is the least, by every pair's interval and noise floor.", name, r.names[side])
	}
}
