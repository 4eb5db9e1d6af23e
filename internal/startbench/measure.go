package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"time"
)

// sample is one run.
type sample struct {
	Wall time.Duration `json:"wall_ns"`
	CPU  time.Duration `json:"cpu_ns"` // of all processes that were waited for
}

// once runs e and measures it.
func (e engine) once(ctx context.Context, id string) (sample, error) {
	cmd, err := e.command(ctx, id)
	if err != nil {
		return sample{}, err
	}
	defer closeFiles(cmd)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	began := time.Now()
	err = cmd.Run()
	wall := time.Since(began)
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w: %s", e.name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return sample{wall, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, nil
}

// many starts n of e at once and returns the time until the last has ended.
func (e engine) many(ctx context.Context, prefix string, n int) (time.Duration, error) {
	cmds := make([]*exec.Cmd, n)
	for i := range cmds {
		cmd, err := e.command(ctx, fmt.Sprintf("%s-%d", prefix, i))
		if err != nil {
			return 0, err
		}
		defer closeFiles(cmd)
		cmds[i] = cmd
	}
	began := time.Now()
	var first error
	keep := func(i int, err error) {
		if err != nil && first == nil {
			first = fmt.Errorf("%s, %d of %d at once: %w", e.name, i+1, n, err)
		}
	}
	started := 0
	for i, cmd := range cmds {
		if err := cmd.Start(); err != nil {
			keep(i, err)
			break
		}
		started++
	}
	for i, cmd := range cmds[:started] {
		keep(i, cmd.Wait())
	}
	return time.Since(began), first
}

// rounds calls f for each engine, round after round, each in an order of its own.
func rounds(list []engine, n int, seed uint64, f func(e engine, round int) error) error {
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range n {
		for _, i := range rng.Perm(len(list)) {
			if err := f(list[i], round); err != nil {
				return err
			}
		}
	}
	return nil
}
