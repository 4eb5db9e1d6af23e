package cli

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/duplex-run/duplex/vmm"
)

// liveStats shows what a guest costs: one line, redrawn on a terminal.
type liveStats struct {
	out io.Writer
	tty bool

	mu    sync.Mutex
	began time.Time
	last  time.Time
	prev  vmm.Stats
}

func (a *app) liveStats() *liveStats {
	f, ok := a.Err.(*os.File)
	now := time.Now()
	return &liveStats{out: a.Err, tty: ok && term.IsTerminal(int(f.Fd())), began: now, last: now}
}

func (l *liveStats) print(s vmm.Stats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	line := statsLine(now.Sub(l.began), now.Sub(l.last), l.prev, s)
	l.last, l.prev = now, s
	if l.tty {
		_, _ = fmt.Fprintf(l.out, "\r\x1b[K%s", line)
		return
	}
	_, _ = fmt.Fprintf(l.out, "duplex: %s\n", line)
}

// done ends the line.
func (l *liveStats) done() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tty && l.prev.Exits != nil {
		_, _ = fmt.Fprint(l.out, "\r\n")
	}
}

// statsLine says what happened in the last step of a run of the given age.
func statsLine(age, step time.Duration, before, now vmm.Stats) string {
	rate := func(n uint64) float64 { return float64(n) / max(step.Seconds(), 1e-3) }
	var b strings.Builder
	var exits, kicks uint64
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(now.Exits)) {
		n := now.Exits[reason] - before.Exits[reason]
		exits += n
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s %.0f", reason, rate(n)))
		}
	}
	for i, n := range now.Kicks {
		kicks += n
		if i < len(before.Kicks) {
			kicks -= before.Kicks[i]
		}
	}
	fmt.Fprintf(&b, "%.1fs  CPU %.0f%%  memory %d MiB  exits/s %.0f", age.Seconds(),
		100*(now.CPUTime-before.CPUTime).Seconds()/max(step.Seconds(), 1e-3), now.Resident>>20, rate(exits))
	if len(parts) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(parts, ", "))
	}
	fmt.Fprintf(&b, "  notifications/s %.0f", rate(kicks))
	return b.String()
}
