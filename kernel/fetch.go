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

// Progress reports how far a fetch is: step is "download" or "unpack", fraction
// 0 to 1. A nil Progress drops it.
type Progress func(step string, fraction float64)

func (p Progress) report(step string, fraction float64) {
	if p != nil {
		p(step, fraction)
	}
}

// Fetch returns the distribution's newest cloud kernel, downloading and
// unpacking it when the cache lacks it. It needs no root. Several processes may
// fetch at once: one does it, the others wait. A fetch that fails or is
// cancelled leaves nothing; one that was killed leaves what the next removes.
func Fetch(ctx context.Context, progress Progress) (*Kernel, error) {
	ref, err := newest(ctx)
	if err != nil {
		return nil, canceled(ctx, err)
	}
	dir, err := hostdir.Cache("kernels", ref.release()+"_"+strings.ReplaceAll(ref.Version, ":", "%3a"))
	if err != nil {
		return nil, err
	}
	if k, err := load(dir); err == nil {
		return k, nil
	}
	if err := fetchInto(ctx, dir, ref, progress); err != nil {
		return nil, canceled(ctx, err)
	}
	return load(dir)
}

// canceled puts the end of ctx before its consequences ("signal: killed").
func canceled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &workload.Error{Op: "fetch a guest kernel", Err: ctx.Err()}
	}
	return err
}

const stagingPrefix = ".fetch-"

// fetchInto makes the kernel directory dir. A lock on the parent directory keeps
// other fetches out, so every staging directory that is there when it is held is
// what a killed fetch left.
func fetchInto(ctx context.Context, dir string, ref packageRef, progress Progress) (err error) {
	root := filepath.Dir(dir)
	lock, err := os.Open(root)
	if err != nil {
		return fmt.Errorf("fetch kernel: %w", err)
	}
	defer func() { _ = lock.Close() }()
	if err := hostdir.Lock(ctx, lock); err != nil {
		return err
	}
	if _, err := load(dir); err == nil {
		return nil // another fetch was faster
	}
	stale, err := filepath.Glob(filepath.Join(root, stagingPrefix+"*"))
	if err != nil {
		return err
	}
	for _, s := range append(stale, dir) {
		if err := os.RemoveAll(s); err != nil {
			return fmt.Errorf("fetch kernel: %w", err)
		}
	}
	staging, err := os.MkdirTemp(root, stagingPrefix)
	if err != nil {
		return fmt.Errorf("fetch kernel: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staging)) }()
	deb, err := download(ctx, ref, staging, func(p float64) { progress.report("download", p/100) })
	if err != nil {
		return err
	}
	kdir := filepath.Join(staging, "kernel")
	if err := unpack(ctx, deb, kdir, ref.release(), progress); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
	}
	if err := writeMeta(kdir, ref); err != nil {
		return err
	}
	return os.Rename(kdir, dir)
}

func writeMeta(dir string, ref packageRef) error {
	data, err := json.Marshal(meta{Release: ref.release(), Package: ref.String()})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, metaName), data, 0o600)
}
