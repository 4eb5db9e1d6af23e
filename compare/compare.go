package compare

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/duplex-run/duplex/internal/workload"
)

// Options say what to compare.
type Options struct {
	// Exe is the duplex binary that makes the samples: os.Executable().
	Exe string
	// Sides are the two or three columns to compare; two of the same are an A/A
	// comparison.
	Sides []Column
	// N is the number of samples a side, 1 or more; Warmup of runs thrown away.
	N, Warmup int
	Seed      uint64
	// Flags are flags of `duplex run`, given to every sample.
	Flags []string
	Image Image
	// Command replaces the image's own when it is not empty.
	Command []string
	// Stdin is the path of a file that every sample reads; empty means none.
	Stdin string
	// IgnoreFailure counts samples whose workload ended with a status but 0.
	IgnoreFailure bool
	// NoProbe leaves the isolation study out.
	NoProbe bool
	Host    Host
	// Progress is called before every run, on the goroutine of Run; may be nil.
	Progress func(Progress)
}

// Progress says what starts now.
type Progress struct {
	Done, Total int
	What        string // "snapshot", "probe", "warm-up" or "sample"
	Isolation   Column
	// Elapsed is how long the runs before took.
	Elapsed time.Duration
}

// session is one comparison under way.
type session struct {
	Options
	sampler     sampler
	begin       time.Time
	done, total int
}

// Run compares. A failed sample is in the Document and no error. The error is
// for a comparison that makes no sense to go on with: duplex itself fails on a
// side already when warming up. When ctx is cancelled, Run ends the run under
// way and returns ctx's error together with a Document of what was measured.
func Run(ctx context.Context, o Options) (*Document, error) {
	if o.N < 1 || o.Warmup < 0 {
		return nil, fmt.Errorf("compare: %d samples and %d warm-ups", o.N, o.Warmup)
	}
	if len(o.Sides) < 2 || len(o.Sides) > MaxColumns {
		return nil, fmt.Errorf("compare: %d sides", len(o.Sides))
	}
	s := &session{Options: o, begin: time.Now(), total: len(o.Sides) * (o.N + o.Warmup)}
	if !o.NoProbe {
		s.total += len(o.Sides)
	}
	if slices.Contains(o.Sides, WarmVM) {
		s.total++
	}
	s.sampler = sampler{exe: o.Exe, flags: o.Flags, image: o.Image.Ref, command: o.Command, stdin: o.Stdin, ignoreFailure: o.IgnoreFailure}
	doc := &Document{
		Schema: Schema, Host: o.Host, Image: o.Image, Runs: []Sample{},
		Settings: Settings{
			Sides: o.Sides, N: o.N, Warmup: o.Warmup, Seed: o.Seed, Flags: withoutValues(o.Flags),
			Command: notNil(o.Command), Order: plan(o.N, len(o.Sides), o.Seed), IgnoreFailure: o.IgnoreFailure,
		},
	}
	err := s.all(ctx, doc)
	summarise(doc)
	return doc, err
}

func (s *session) all(ctx context.Context, doc *Document) error {
	if i := slices.Index(s.Sides, WarmVM); i >= 0 {
		s.tell("snapshot", i)
		var err error
		if doc.Summary.Snapshot, err = s.snapshot(ctx); err != nil {
			return err
		}
	}
	if !s.NoProbe {
		study, err := s.study(ctx)
		doc.Summary.Isolation = study
		if err != nil {
			return err
		}
	}
	if err := s.warmUp(ctx); err != nil {
		return err
	}
	for i, side := range doc.Settings.Order {
		r, err := s.one(ctx, "sample", side, 0)
		if err != nil {
			return err
		}
		r.Order = i
		doc.Runs = append(doc.Runs, r.Sample)
	}
	return nil
}

// warmUp runs each side and throws the times away. A side on which duplex
// itself fails will not do better later: that ends the comparison.
func (s *session) warmUp(ctx context.Context) error {
	for range s.Warmup {
		for side := range s.Sides {
			r, err := s.one(ctx, "warm-up", side, 0)
			if err != nil {
				return err
			}
			if r.Exit.Failed != "" && r.Exit.Status == workload.StatusError {
				return &workload.Error{
					Op:     fmt.Sprintf("warm up the %s side", s.Sides[side]),
					Err:    fmt.Errorf("%s", r.Exit.Failed),
					Remedy: fmt.Sprintf("'duplex run %s' shows it alone; 'duplex doctor' says what this host can do", strings.Join(s.Sides[side].flags(), " ")),
				}
			}
		}
	}
	return nil
}

func (s *session) one(ctx context.Context, what string, side, keep int, extra ...string) (*result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.tell(what, side)
	return s.sampler.run(ctx, s.Sides[side], keep, extra...)
}

// tell says what starts now.
func (s *session) tell(what string, side int) {
	if s.Progress != nil {
		s.Progress(Progress{Done: s.done, Total: s.total, What: what, Isolation: s.Sides[side], Elapsed: time.Since(s.begin)})
	}
	s.done++
}

// withoutValues drops what --env flags set: a document is made to be shown
// around, and secrets travel in environments.
func withoutValues(flags []string) []string {
	out := []string{}
	for _, f := range flags {
		if rest, ok := strings.CutPrefix(f, "--env="); ok {
			name, _, _ := strings.Cut(rest, "=")
			f = "--env=" + name
		}
		out = append(out, f)
	}
	return out
}

func notNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
