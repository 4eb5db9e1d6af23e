package bootbench

// Record is one boot, or a version: a line of JSON between the lab and the host.
type Record struct {
	// Case is a Case's name; "" for what Text says of the whole.
	Case string `json:"case,omitempty"`
	Run  int    `json:"run"` // from 0; -1 is the warm-up, which no table has
	// Ns are the times of steps since the start of the process, in nanoseconds of
	// the lab's clock.
	Ns map[string]int64 `json:"ns,omitempty"`
	// Text is a version, or why the boot failed.
	Text string `json:"text,omitempty"`
}

// Steps of a boot, the keys of Record.Ns. Those of duplex and of containers are
// the phases of its own report as well.
const (
	// Userspace is the first byte that user space writes (Bare).
	Userspace = "userspace"
	// Workload is just before the command of the image is executed (Image, Warm).
	Workload = "workload"
	// FirstByte is the first byte that the command writes (all but Bare).
	FirstByte = "first_byte"
)

// End is the step that a case is judged by.
func (c Case) End() string {
	switch c.What {
	case Bare:
		return Userspace
	case Bundle:
		return FirstByte
	}
	return Workload
}

// Times are the times of one step of a case, in nanoseconds, in the order of the
// runs.
func Times(records []Record, c Case, step string) []float64 {
	var list []float64
	for _, r := range records {
		if ns, ok := r.Ns[step]; ok && r.Case == c.Name() && r.Run >= 0 {
			list = append(list, float64(ns))
		}
	}
	return list
}
