package runcli

import (
	"context"
	"errors"
	"os"

	"github.com/duplex-run/duplex/container"
	"github.com/duplex-run/duplex/image"
	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/network/bridge/state"
)

// needsWhole says whether this program lacks what the flags ask for.
func (f *Flags) needsWhole(a *App, iso workload.Isolation) bool {
	return a.Whole == nil && (iso != workload.Container || f.Lab == "always" || f.probe ||
		len(f.Publish) > 0 || state.Stale())
}

// find resolves the image of a run in a program that only makes containers, before
// anything is made: what it cannot make, all of duplex does instead.
func (f *Flags) find(ctx context.Context, a *App, r container.Runner, ref string) (err error) {
	if a.Whole != nil {
		return nil
	}
	if !r.Linked() {
		return becomeWhole()
	}
	if f.img, err = a.Image(ctx, ref, container.NeedsTree()); errors.Is(err, image.ErrNotLinked) {
		return becomeWhole()
	}
	return err
}

// becomeWhole has all of duplex do what this program was told to. It returns only
// when it could not.
func becomeWhole() error { return cmdline.BecomeWhole("run", cmdline.Arguments(os.Args)) }
