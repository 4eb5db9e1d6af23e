package embedded

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

// Caches are keyed by AgentID: it must follow the agent.
func TestAgentIDIsTheAgentsHash(t *testing.T) {
	agent, err := Agent()
	if err != nil {
		t.Fatalf("run `make build` first: %v", err)
	}
	sum := sha256.Sum256(agent)
	id, err := AgentID()
	if want := hex.EncodeToString(sum[:]); err != nil || id != want {
		t.Errorf("AgentID %q, %v, want %q", id, err, want)
	}
}
