package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/bootreport"
)

// A report of a workload that would not end by itself: every part of the boot is
// there, in order, and the two clocks agree where both saw the same. Where the
// boots happen in the lab, the files come back from there.
func TestBootReport(t *testing.T) {
	if inLab() {
		return // the host's part of the report is tested, too
	}
	dir := t.TempDir()
	svg, perfetto := filepath.Join(dir, "r.svg"), filepath.Join(dir, "r.json")
	r := duplex(t, nil, "boot-report", "--json", "--svg="+svg, "--perfetto="+perfetto, image, "/helper", "sleep")
	if r.status != 0 || strings.Count(r.stderr, "\n") > 1 {
		t.Fatalf("status %d, stderr %q", r.status, r.stderr)
	}
	doc := new(bootreport.Document)
	dec := json.NewDecoder(strings.NewReader(r.stdout))
	dec.DisallowUnknownFields()
	if err := dec.Decode(doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Boots) != 3 || doc.End != "first_byte" || doc.TotalNs <= 0 || len(doc.Notes) > 0 {
		t.Errorf("%d boots, end %s after %d ns, notes %q", len(doc.Boots), doc.End, doc.TotalNs, doc.Notes)
	}
	checkSpans(t, doc)
	k := doc.Kernel
	if k.Count < 300 || k.InitcallsNs <= 0 || k.InitcallsNs > k.SeenNs || k.LogNs <= 0 || k.LogNs > k.SeenNs {
		t.Errorf("kernel: %d initcalls of %d ns, log of %d ns in %d", k.Count, k.InitcallsNs, k.LogNs, k.SeenNs)
	}
	if c := k.Clock; c.GuestNs <= 0 || c.HostNs < c.GuestNs/2 || c.HostNs > 2*c.GuestNs {
		t.Errorf("from the agent's first step to its last: host %d ns, guest %d ns", c.HostNs, c.GuestNs)
	}
	if k := doc.KVM; k.Exits < 1000 || k.MemoryFaults == 0 || doc.ExitNs <= 0 || doc.FaultNs <= 0 {
		t.Errorf("KVM counted %+v; an exit takes %d ns, a page fault %d ns", k, doc.ExitNs, doc.FaultNs)
	}
	b := doc.Boots[1]
	if b.Bytes["kernel"] < 1<<20 || b.Bytes["initrd"] < 1<<20 || b.Bytes["disk_read"] == 0 || b.Memory["guest_rss"] < 1<<20 || b.Minor == 0 {
		t.Errorf("bytes %v, memory %v, %d page faults", b.Bytes, b.Memory, b.Minor)
	}
	drawn, err := os.ReadFile(svg)
	if err != nil || !strings.Contains(string(drawn), "guest kernel") {
		t.Errorf("svg: %v, %d bytes", err, len(drawn))
	}
	var events struct{ TraceEvents []struct{ Name string } }
	raw, err := os.ReadFile(perfetto)
	if err == nil {
		err = json.Unmarshal(raw, &events)
	}
	if err != nil || len(events.TraceEvents) < len(doc.Spans) {
		t.Errorf("perfetto: %v, %d events", err, len(events.TraceEvents))
	}
}

func checkSpans(t *testing.T, doc *bootreport.Document) {
	t.Helper()
	last, exits, faults := int64(0), uint64(0), int64(0)
	parts := map[string]int{}
	for _, s := range doc.Spans {
		if s.Depth > 0 {
			parts[s.Group]++
			continue
		}
		if s.StartNs != last || s.EndNs < s.StartNs {
			t.Errorf("%s from %d to %d ns, after %d", s.Name, s.StartNs, s.EndNs, last)
		}
		last = s.EndNs
		exits += s.Exits
		if s.Faults != nil {
			faults += s.Faults.Minor
		}
	}
	if last != doc.TotalNs || exits < 100 || faults == 0 {
		t.Errorf("ends at %d of %d ns, %d exits, %d page faults", last, doc.TotalNs, exits, faults)
	}
	if parts[bootreport.GroupHost] < 4 || parts[bootreport.GroupKernel] < 4 || parts[bootreport.GroupAgent] < 6 {
		t.Errorf("parts %v", parts)
	}
}
