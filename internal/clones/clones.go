package clones

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options say what to run.
type Options struct {
	Exe   string   // the duplex binary
	Flags []string // of `duplex run`
	Image string
	N     int // clones
	Jobs  int // started at once
	// Progress is called when a clone is up; may be nil.
	Progress func(up int)
}

// Result is what was measured, with all clones up.
type Result struct {
	Clones int `json:"clones"`
	// StartNs is from the start of the first to the moment the last is up; UpNs holds
	// what each took from its exec until a line came back, sorted. Nanoseconds.
	StartNs int64   `json:"start_ns"`
	UpNs    []int64 `json:"up_ns"`
	// Memory is of each clone with all its processes, sorted by Unique.
	Memory []Memory `json:"memory"`
	Total  Memory   `json:"total"`
	// HostBytes is by how much MemAvailable of the host went down.
	HostBytes int64 `json:"host_bytes"`
}

// clone is one that runs.
type clone struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	err strings.Builder
	up  time.Duration
}

// Run starts the clones, measures, and ends them. On error all are ended too.
func Run(ctx context.Context, o Options) (*Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	before, err := available()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	clones, err := startAll(ctx, cancel, o)
	if err != nil {
		return nil, errors.Join(err, endAll(ctx, clones))
	}
	r := &Result{Clones: o.N, StartNs: int64(time.Since(begin))}
	err = r.measure(clones, before)
	if err = errors.Join(err, endAll(ctx, clones)); err != nil {
		return nil, err
	}
	return r, nil
}

// measure fills in what is known while all clones are up.
func (r *Result) measure(clones []*clone, before int64) error {
	after, err := available()
	if err != nil {
		return err
	}
	r.HostBytes = before - after
	for _, c := range clones {
		m, err := memoryOf(c.cmd.Process.Pid)
		if err != nil {
			return err
		}
		r.Memory, r.UpNs = append(r.Memory, m), append(r.UpNs, int64(c.up))
		r.Total.add(m)
	}
	slices.Sort(r.UpNs)
	slices.SortFunc(r.Memory, func(a, b Memory) int { return cmp.Compare(a.Unique, b.Unique) })
	return nil
}

// startAll starts the clones, o.Jobs at once, and returns those that it started.
func startAll(ctx context.Context, cancel func(), o Options) ([]*clone, error) {
	var mu sync.Mutex
	var clones []*clone
	var errs error
	var up int
	slots := make(chan struct{}, o.Jobs)
	var wg sync.WaitGroup
	for range o.N {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			c, err := o.start(ctx)
			mu.Lock()
			defer mu.Unlock()
			if c != nil {
				clones = append(clones, c)
			}
			if err != nil && errs == nil { // the others fail because of it
				errs = err
				cancel()
			}
			if up++; err == nil && o.Progress != nil {
				o.Progress(up)
			}
		})
	}
	wg.Wait()
	return clones, errors.Join(errs, ctx.Err())
}

// line is what a clone gets and has to give back.
const line = "up\n"

func (o *Options) start(ctx context.Context) (*clone, error) {
	args := slices.Concat([]string{"run", "--vm", "--warm", "--interactive"}, o.Flags, []string{o.Image, "cat"})
	c := &clone{cmd: exec.CommandContext(ctx, o.Exe, args...)}
	// Ctrl-C is for us, who end them.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c.cmd.Cancel = func() error { return c.cmd.Process.Signal(syscall.SIGTERM) }
	c.cmd.Stderr, c.cmd.WaitDelay = &c.err, 5*time.Second
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	begin := time.Now()
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a clone: %w", err)
	}
	if _, err = io.WriteString(c.in, line); err == nil {
		var got string
		if got, err = c.out.ReadString('\n'); err == nil && got != line {
			err = fmt.Errorf("%q came back, not %q", got, line)
		}
	}
	c.up = time.Since(begin)
	if err != nil {
		_ = c.in.Close()
		waited := c.cmd.Wait()
		return nil, fmt.Errorf("start a clone: %w (%v): %s", err, waited, strings.TrimSpace(c.err.String()))
	}
	return c, nil
}

// endAll ends the clones by the end of their input.
func endAll(ctx context.Context, clones []*clone) error {
	for _, c := range clones {
		_ = c.in.Close() // one that is gone says so below
	}
	var errs error
	for _, c := range clones {
		if err := c.cmd.Wait(); err != nil && ctx.Err() == nil {
			errs = errors.Join(errs, fmt.Errorf("a clone ended: %w: %s", err, strings.TrimSpace(c.err.String())))
		}
	}
	return errs
}
