package oci

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/duplex-run/duplex/oci/cgroups"
)

// Event is one line of events, in runc's form.
type Event struct {
	Type string         `json:"type"` // stats, oom
	ID   string         `json:"id"`
	Data *cgroups.Stats `json:"data,omitempty"`
}

// Events calls show with what the container uses, every interval, and when a
// process of it was killed for want of memory, until it ends; once only with an
// interval of 0.
func (c *Container) Events(ctx context.Context, interval time.Duration, show func(Event) error) error {
	if c.VM == nil && (c.Cgroups == nil || len(c.Cgroups.Dirs) == 0) {
		return errors.New("events need a cgroup, and the container has none")
	}
	if c.Status() == specs.StateStopped {
		return errNotRunning
	}
	if interval == 0 {
		stats, _, err := c.usage()
		if err != nil {
			return err
		}
		return show(Event{Type: "stats", ID: c.ID, Data: stats})
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var kills uint64
	for c.alive() {
		stats, n, err := c.usage()
		switch {
		case err != nil && !c.alive():
			return nil
		case err != nil:
			return err
		}
		if n > kills {
			kills = n
			if err := show(Event{Type: "oom", ID: c.ID}); err != nil {
				return err
			}
		}
		if err := show(Event{Type: "stats", ID: c.ID, Data: stats}); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// usage is what the container uses, and how many of its processes were killed for
// want of memory; of one in a microVM, as its guest counts.
func (c *Container) usage() (*cgroups.Stats, uint64, error) {
	if c.VM == nil {
		stats := c.Cgroups.Stats()
		return &stats, c.Cgroups.OOMKills(), nil
	}
	a, err := c.askMachine(word{Op: opStats})
	if err == nil && a.Stats == nil {
		err = errors.New("the guest does not say what it uses")
	}
	return a.Stats, a.OOM, err
}
