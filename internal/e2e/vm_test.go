package e2e

import (
	"strings"
	"testing"
)

// What a guest can do to its machine ends the run with a status and a reason.
func TestGuestEnds(t *testing.T) {
	if !inLab() {
		t.Skip("needs a KVM that boots a stock kernel: TestInLab runs it there")
	}
	tests := []struct {
		name   string
		cmd    []string
		stderr string
	}{
		{"panic", []string{"/helper", "sysrq", "c"}, "panic"},
		{"power off", []string{"/helper", "reboot", "0x4321fedc"}, "power"},
		{"restart", []string{"/helper", "reboot", "0x01234567"}, "re"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := duplex(t, nil, concat([]string{"run", "--vm", "--lab=never", image}, tt.cmd)...)
			if r.status != 125 || !strings.Contains(r.stderr, tt.stderr) {
				t.Errorf("status %d, stderr %q, want 125 and %q", r.status, r.stderr, tt.stderr)
			}
		})
	}
}
