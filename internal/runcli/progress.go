package runcli

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress is one line on a terminal, redrawn in place. On anything else it is
// silent. Its methods may be called from several goroutines.
type progress struct {
	mu    sync.Mutex
	tty   *os.File // nil when stderr is no terminal
	drawn time.Time
	text  string
}

// redraw bounds how often the line is drawn.
const redraw = 100 * time.Millisecond

func (a *App) Progress() *progress {
	f, ok := a.Err.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return &progress{}
	}
	return &progress{tty: f}
}

// update shows text and, when fraction is not negative, a percentage.
func (p *progress) Update(text string, fraction float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tty == nil || (text == p.text && time.Since(p.drawn) < redraw) {
		return
	}
	p.text, p.drawn = text, time.Now()
	line := text
	if fraction >= 0 {
		line = fmt.Sprintf("%s %3.0f%%", text, 100*min(fraction, 1))
	}
	_, _ = fmt.Fprintf(p.tty, "\r\x1b[K%s", line)
}

// done takes the line away.
func (p *progress) Done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tty != nil && p.text != "" {
		_, _ = fmt.Fprint(p.tty, "\r\x1b[K")
	}
	p.text = ""
}

// Shown says whether anybody sees it.
func (p *progress) Shown() bool { return p.tty != nil }
