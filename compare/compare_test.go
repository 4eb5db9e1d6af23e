package compare

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/compare/isolation"
	"github.com/duplex-run/duplex/internal/workload"
)

func options(t *testing.T, image string) Options {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Exe: exe, Sides: []Column{VM, Container},
		N: 4, Seed: 7, Image: Image{Ref: image}, NoProbe: true,
	}
}

func TestPlan(t *testing.T) {
	order := plan(200, 2, 1)
	firsts := 0
	for i := 0; i < len(order); i += 2 {
		if order[i]+order[i+1] != 1 {
			t.Fatalf("pair %d is %v", i/2, order[i:i+2])
		}
		firsts += order[i]
	}
	if firsts < 70 || firsts > 130 {
		t.Errorf("side 1 went first in %d of 200 pairs", firsts)
	}
	if !slices.Equal(order, plan(200, 2, 1)) || slices.Equal(order, plan(200, 2, 2)) {
		t.Error("the order does not follow from the seed")
	}
}

// With three sides every order of a round comes up, about as often.
func TestPlanOfThree(t *testing.T) {
	order, count := plan(600, 3, 1), map[[3]int]int{}
	for ; len(order) > 0; order = order[3:] {
		count[[3]int(order)]++
	}
	for round, n := range count {
		if round[0]+round[1]+round[2] != 3 || round[0] == round[1] || n < 60 || n > 140 {
			t.Errorf("round %v came %d times of 600", round, n)
		}
	}
	if len(count) != 6 {
		t.Errorf("%d orders", len(count))
	}
}

func TestEverySampleIsAFreshProcess(t *testing.T) {
	o := options(t, "pid")
	o.Warmup = 1
	var said []Progress
	o.Progress = func(p Progress) { said = append(said, p) }
	doc, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i, r := range doc.Runs {
		seen[r.Exit.StdoutSHA256] = true
		if r.Order != i || r.Isolation != o.Sides[doc.Settings.Order[i]] || r.Exit.Failed != "" {
			t.Errorf("run %d: %+v", i, r)
		}
	}
	if len(doc.Runs) != 8 || len(seen) != 8 || doc.Summary.SameOutput {
		t.Errorf("%d runs with %d process numbers, same output %v", len(doc.Runs), len(seen), doc.Summary.SameOutput)
	}
	if len(said) != 10 || said[0].What != "warm-up" || said[9].Done != 9 || said[9].Total != 10 {
		t.Errorf("progress %+v", said)
	}
}

func TestSamplesHoldPhasesAndCosts(t *testing.T) {
	doc, err := Run(t.Context(), options(t, "hello"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range doc.Runs {
		last := int64(0)
		for p := workload.PhaseImage; p < workload.NumPhases; p++ {
			ns, ok := r.PhasesNs[p.String()]
			if want := p != workload.PhaseKernelUp || r.Isolation == VM; ok != want {
				t.Errorf("%s: phase %s present %v, want %v", r.Isolation, p, ok, want)
			}
			if ok && p != workload.PhaseFirstByte && p != workload.PhaseExited {
				if ns <= last {
					t.Errorf("%s: phase %s at %d ns is not after %d", r.Isolation, p, ns, last)
				}
				last = ns
			}
		}
		if r.CPUNs <= 0 || (r.Exits == nil) != (r.Isolation == Container) || len(r.Memory) != 1 {
			t.Errorf("%s: CPU %d, exits %v, memory %v", r.Isolation, r.CPUNs, r.Exits, r.Memory)
		}
	}
	if !doc.Summary.SameOutput || doc.Summary.Interrupted || !slices.Equal(doc.Summary.Failed, []int{0, 0}) {
		t.Errorf("summary %+v", doc.Summary)
	}
}

func TestFailedSamplesAreReportedAndNotCounted(t *testing.T) {
	for _, tc := range []struct {
		image, why string
		failed     []int
		ignore     bool
	}{
		{"hello", "", []int{0, 0}, false},
		{"exit-3", "exit status 3", []int{4, 4}, false},
		{"exit-3", "", []int{0, 0}, true},
		{"broken", "open /dev/kvm: permission denied", []int{4, 4}, false},
		{"broken-vm", "KVM_RUN: bad?[2J state", []int{4, 0}, false},
		{"no-report", "status 2 and no report: panic: something", []int{4, 4}, false},
	} {
		t.Run(tc.image, func(t *testing.T) {
			o := options(t, tc.image)
			o.IgnoreFailure = tc.ignore
			doc, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(doc.Summary.Failed, tc.failed) {
				t.Errorf("failed %v, want %v", doc.Summary.Failed, tc.failed)
			}
			for _, r := range doc.Runs {
				if tc.failed[doc.Settings.Order[r.Order]] > 0 && r.Exit.Failed != tc.why {
					t.Errorf("run %d: %q, want %q", r.Order, r.Exit.Failed, tc.why)
				}
			}
			for _, m := range doc.Summary.Metrics {
				for side, s := range m.Sides {
					if s != nil && s.N != 4-tc.failed[side] {
						t.Errorf("%s %s: %d samples counted", m.Kind, m.Name, s.N)
					}
				}
			}
			var b bytes.Buffer
			if err := Report(&b, doc, false); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.ReplaceAll(b.String(), "\n", " "), tc.why) {
				t.Errorf("the report does not say %q:\n%s", tc.why, b.String())
			}
		})
	}
}

func TestBrokenSideEndsWhenWarmingUp(t *testing.T) {
	o := options(t, "broken")
	o.Warmup = 1
	doc, err := Run(t.Context(), o)
	var werr *workload.Error
	if !errors.As(err, &werr) || !strings.Contains(err.Error(), "/dev/kvm") || werr.Remedy == "" {
		t.Errorf("got %v, want the failure and a remedy", err)
	}
	if len(doc.Runs) != 0 {
		t.Errorf("%d runs were made after all", len(doc.Runs))
	}
}

func TestStdinReachesEverySample(t *testing.T) {
	o := options(t, "cat")
	o.Stdin = filepath.Join(t.TempDir(), "in")
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	if err := os.WriteFile(o.Stdin, data, 0o600); err != nil {
		t.Fatal(err)
	}
	doc, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range doc.Runs {
		if r.Exit.StdoutBytes != int64(len(data)) || r.Exit.Failed != "" {
			t.Errorf("run %d: %d bytes came back (%s)", r.Order, r.Exit.StdoutBytes, r.Exit.Failed)
		}
	}
	if !doc.Summary.SameOutput {
		t.Error("the output differs")
	}
}

func TestCancelEndsTheRunAndKeepsTheRest(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	o := options(t, "hang")
	o.Command = []string{fifo}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type outcome struct {
		doc *Document
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		doc, err := Run(ctx, o)
		done <- outcome{doc, err}
	}()
	pid := readPID(t, fifo)
	cancel()
	got := <-done
	if !errors.Is(got.err, context.Canceled) || !got.doc.Summary.Interrupted {
		t.Errorf("error %v, interrupted %v", got.err, got.doc.Summary.Interrupted)
	}
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("process %d is still there: %v", pid, err)
	}
}

func TestStudyClassifiesBothSides(t *testing.T) {
	o := options(t, "hello")
	o.NoProbe, o.N = false, 1
	doc, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for side, s := range doc.Summary.Isolation.Sides {
		f := find(s.Findings, "mount")
		if s.Isolation != o.Sides[side] || s.Error != "" || f == nil || f.Verdict != isolation.GuestOnly {
			t.Errorf("side %d: %+v, mount %v", side, s, f)
		}
	}
}

// The warm side's runs are microVMs with --warm, from a snapshot that is made first.
func TestWarmSide(t *testing.T) {
	o := options(t, "hello")
	o.Sides, o.N, o.Warmup, o.NoProbe = []Column{Container, VM, WarmVM}, 4, 1, false
	o.Flags = []string{"--memory=64m", "--user=1"}
	var said []Progress
	o.Progress = func(p Progress) { said = append(said, p) }
	doc, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	made := doc.Summary.Snapshot
	if made == nil || made.CreateNs <= 0 || made.Bytes != 64<<20 {
		t.Errorf("snapshot %+v", made)
	}
	if len(said) != 19 || said[0].What != "snapshot" || said[0].Isolation != WarmVM || said[0].Total != 19 {
		t.Errorf("%d steps, the first %+v", len(said), said[0])
	}
	for _, r := range doc.Runs {
		if warm := r.Exits["warm"] == 1; warm != (r.Isolation == WarmVM) || r.Exit.Failed != "" {
			t.Errorf("run %d of %s: warm %v, %s", r.Order, r.Isolation, warm, r.Exit.Failed)
		}
	}
	for _, m := range doc.Summary.Metrics {
		want := map[string]int{kindReached: 3, kindCPU: 3, kindExits: 1}[m.Kind]
		if m.Name == "kernel_up" { // not the container's
			want = 1
		}
		if m.Kind != kindStep && len(m.Pairs) != want {
			t.Errorf("%s %s: %d pairs, want %d", m.Kind, m.Name, len(m.Pairs), want)
		}
	}
	o = options(t, "no-snapshot")
	o.Sides = []Column{VM, WarmVM}
	var werr *workload.Error
	if _, err := Run(t.Context(), o); !errors.As(err, &werr) || !strings.Contains(err.Error(), "no space left") || werr.Remedy == "" {
		t.Errorf("a snapshot that cannot be made: %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	o := options(t, "hello")
	o.N = 0
	if _, err := Run(t.Context(), o); err == nil {
		t.Error("no samples, no error")
	}
	o = options(t, "hello")
	o.Exe = filepath.Join(t.TempDir(), "absent")
	if _, err := Run(t.Context(), o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent binary: %v", err)
	}
}

func TestDocumentHoldsNoSecrets(t *testing.T) {
	o := options(t, "hello")
	o.N, o.Flags = 1, []string{"--env=TOKEN=s3cret=x", "--memory=64m"}
	doc, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if got := doc.Settings.Flags; !slices.Equal(got, []string{"--env=TOKEN", "--memory=64m"}) {
		t.Errorf("flags %q", got)
	}
	if doc.Measured(0) != 1 || doc.Measured(1) != 1 {
		t.Errorf("measured %d and %d", doc.Measured(0), doc.Measured(1))
	}
}

func TestStepSkipsWhatCameLater(t *testing.T) {
	r := &Sample{PhasesNs: map[string]int64{"workload": 10, "first_byte": 35, "exited": 30, "torn_down": 50}}
	for p, want := range map[workload.Phase]float64{
		workload.PhaseWorkload: 10, workload.PhaseFirstByte: 25, workload.PhaseExited: 20, workload.PhaseTornDown: 20,
	} {
		if got, ok := step(p)(r); !ok || got != want {
			t.Errorf("%s: %v %v, want %v", p, got, ok, want)
		}
	}
	if _, ok := step(workload.PhaseImage)(r); ok {
		t.Error("a phase that was not passed has a step")
	}
}
