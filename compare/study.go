package compare

import (
	"context"
	"fmt"

	"github.com/duplex-run/duplex/compare/isolation"
)

// probeFlag makes `duplex run` run the probe in the place of the command.
const probeFlag = "--probe"

// study runs the probe once on each side, on the same image and with the same
// flags as the samples. It comes first: what it leaves in caches, the warm-up
// runs leave too.
func (s *session) study(ctx context.Context) (*Study, error) {
	host, err := isolation.ReadHost()
	if err != nil {
		return nil, err
	}
	st := &Study{Host: host, Sides: make([]StudySide, len(s.Sides))}
	for side := range s.Sides {
		st.Sides[side].Isolation = s.Sides[side]
		r, err := s.one(ctx, "probe", side, isolation.MaxDocument+1, probeFlag)
		if err != nil {
			return st, err
		}
		st.Sides[side].read(r, host)
	}
	return st, nil
}

func (side *StudySide) read(r *result, host isolation.HostFacts) {
	if r.Exit.Failed != "" {
		side.Error = r.Exit.Failed
		return
	}
	o, err := isolation.Parse(r.stdout)
	if err != nil {
		side.Error = oneLine(fmt.Sprint(err))
		return
	}
	side.Observation, side.Findings = o, isolation.Classify(o, host)
}
