package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

// doctor says what runs here, for people and for programs, and is right about
// it: in the lab KVM boots a stock kernel, and containers run on any machine
// that these tests do.
func TestDoctor(t *testing.T) {
	r := duplex(t, nil, "doctor", "--json")
	var doc struct {
		Checks []struct{ Name, State, Detail, Remedy string }
		KVM    struct {
			BootsStockKernel bool `json:"boots_stock_kernel"`
		}
		Verdict map[string]struct{ Runs, Why string }
	}
	if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil || r.status != 0 {
		t.Fatalf("status %d, %v, %s", r.status, err, r.stderr)
	}
	if got := doc.Verdict["container"].Runs; got != "native" {
		t.Errorf("container: %q, want native: %+v", got, doc.Checks)
	}
	if got := doc.Verdict["vm"].Runs; (got == "native") != doc.KVM.BootsStockKernel || inLab() && got != "native" {
		t.Errorf("microVM: %q, KVM boots a stock kernel: %v", got, doc.KVM.BootsStockKernel)
	}
	text := duplex(t, nil, "doctor")
	for _, c := range doc.Checks {
		if !strings.Contains(text.stdout, c.Name) {
			t.Errorf("%s is in the document and not in the text", c.Name)
		}
		if c.State == "fail" && c.Remedy == "" && c.Name != "kvm guest" {
			t.Errorf("%s failed without a remedy", c.Name)
		}
	}
}
