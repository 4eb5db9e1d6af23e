package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/workload"
)

// Progress reports how far a fetch is: step is "download", "unpack" or
// "update package lists", fraction 0 to 1, or negative when nobody knows. A nil
// Progress drops it.
type Progress func(step string, fraction float64)

// Report calls p, when there is one.
func (p Progress) Report(step string, fraction float64) {
	if p != nil {
		p(step, fraction)
	}
}

// Fetch returns the distribution's newest cloud kernel, downloading and
// unpacking it when the cache lacks it. It needs no root. Where the machine's
// package lists are missing or too old, it gets its own and drops them afterwards.
// Several processes may fetch at once: one does it, the others wait. A fetch that
// fails or is cancelled leaves nothing; one that was killed leaves what the next
// removes. Errors are *workload.Error.
func Fetch(ctx context.Context, progress Progress) (*Kernel, error) {
	k, err := fetch(ctx, progress)
	var werr *workload.Error
	switch {
	case err == nil:
		return k, nil
	case ctx.Err() != nil: // before its consequences ("signal: killed")
		return nil, &workload.Error{Op: fetchOp, Err: ctx.Err()}
	case errors.As(err, &werr):
		return nil, err
	}
	return nil, &workload.Error{Op: fetchOp, Err: err}
}

const fetchOp = "fetch a guest kernel"

func fetch(ctx context.Context, progress Progress) (*Kernel, error) {
	if err := haveTools(); err != nil {
		return nil, &workload.Error{Op: fetchOp, Err: err, Remedy: remedyNoApt}
	}
	lists := packageLists{} // the machine's
	ref, err := lists.newest(ctx)
	if err == nil {
		if k, err := loadRef(ref); err == nil {
			return k, nil
		}
	}
	var k *Kernel
	serr := withStaging(ctx, func(staging string) error {
		if err == nil {
			k, err = get(ctx, lists, ref, staging, progress)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		progress.Report("update package lists", 0)
		lists, uerr := updatedLists(ctx, filepath.Join(staging, "apt"))
		if uerr != nil {
			return fmt.Errorf("%w; then %w", err, uerr)
		}
		if ref, err = lists.newest(ctx); err != nil {
			return err
		}
		k, err = get(ctx, lists, ref, staging, progress)
		return err
	})
	return k, serr
}

// cacheDir is the directory of the kernel of ref.
func cacheDir(ref packageRef) (string, error) {
	return hostdir.Cache("kernels", ref.release()+"_"+strings.ReplaceAll(ref.Version, ":", "%3a"))
}

func loadRef(ref packageRef) (*Kernel, error) {
	dir, err := cacheDir(ref)
	if err != nil {
		return nil, err
	}
	return load(dir)
}

const stagingPrefix = ".fetch-"

// withStaging calls f with an empty directory beside the kernels, which it
// removes afterwards. A lock on the parent directory keeps other fetches out, so
// every staging directory that is there when it is held is what a killed fetch
// left.
func withStaging(ctx context.Context, f func(staging string) error) (err error) {
	any, err := hostdir.Cache("kernels", "any")
	if err != nil {
		return err
	}
	root := filepath.Dir(any)
	lock, err := os.Open(root)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if err := hostdir.Lock(ctx, lock); err != nil {
		return err
	}
	stale, err := filepath.Glob(filepath.Join(root, stagingPrefix+"*"))
	if err != nil {
		return err
	}
	for _, s := range stale {
		if err := os.RemoveAll(s); err != nil {
			return err
		}
	}
	staging, err := os.MkdirTemp(root, stagingPrefix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staging)) }()
	return f(staging)
}

// get downloads and unpacks ref in staging and moves it to its place, unless
// another fetch did while this one waited for the lock.
func get(ctx context.Context, lists packageLists, ref packageRef, staging string, progress Progress) (*Kernel, error) {
	if k, err := loadRef(ref); err == nil {
		return k, nil
	}
	deb, err := lists.download(ctx, ref, staging, func(p float64) { progress.Report("download", p/100) })
	if err != nil {
		return nil, err
	}
	made := filepath.Join(staging, "kernel")
	if err := unpack(ctx, deb, made, ref.release(), progress); err != nil {
		return nil, fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	if err := writeMeta(made, ref); err != nil {
		return nil, err
	}
	dir, err := cacheDir(ref)
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(dir); err != nil { // what load could not read
		return nil, err
	}
	if err := os.Rename(made, dir); err != nil {
		return nil, err
	}
	return load(dir)
}

func writeMeta(dir string, ref packageRef) error {
	data, err := json.Marshal(meta{Release: ref.release(), Package: ref.String()})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, metaName), data, 0o600)
}
