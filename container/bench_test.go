package container

import (
	"io"
	"sort"
	"testing"

	"github.com/duplex-run/duplex/internal/workload"
)

// BenchmarkTrue is a container from start to end around a workload that does
// nothing, with the time each phase takes (docs/measuring.md).
func BenchmarkTrue(b *testing.B) {
	tree := newTree(b)
	for _, bb := range []struct {
		name string
		res  workload.Resources
	}{
		{"nolimits", workload.Resources{}},
		{"limits", workload.Resources{MemoryBytes: 64 << 20, CPUs: 1, Pids: 100}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			times := map[string][]int64{}
			for b.Loop() {
				spec := newSpec(tree, "exit", "0")
				spec.Resources = bb.res
				rec := &workload.Recorder{}
				rec.Stamp(workload.PhaseExec)
				if _, err := (Runner{}).Run(b.Context(), spec, workload.Stdio{Out: io.Discard, Err: io.Discard}, rec); err != nil {
					b.Fatal(err)
				}
				stamps := rec.Stamps()
				last := stamps["exec"]
				for _, p := range []string{"created", "loaded", "entered", "workload", "exited", "torn_down"} {
					times[p] = append(times[p], stamps[p]-last)
					last = stamps[p]
				}
			}
			for p, ns := range times {
				sort.Slice(ns, func(i, j int) bool { return ns[i] < ns[j] })
				b.ReportMetric(float64(ns[len(ns)/2])/1e3, p+"-µs")
			}
		})
	}
}
