package workload

// Report is what one `duplex run --report-fd=N` writes to descriptor N just
// before it exits: one line of JSON. `duplex compare` starts every sample as a
// fresh process and reads it; see docs/measuring.md.
type Report struct {
	// Stamps are CLOCK_MONOTONIC_RAW nanoseconds by phase name, absolute: the
	// reader subtracts its own stamp of PhaseExec. Phases not passed are absent.
	Stamps map[string]int64 `json:"stamps"`
	Usage  Usage            `json:"usage"`
	// Steps are finer than the phases, in the order they were recorded.
	Steps []Step `json:"steps,omitempty"`
	// Exit is meaningless when Error is set.
	Exit Exit `json:"exit"`
	// Error is duplex's own failure in one line; empty when the workload ran.
	Error string `json:"error,omitempty"`
}
