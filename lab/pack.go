package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/duplex-run/duplex/image/erofs"
	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/workload"
)

const (
	// ownPackAbove is the size in bytes above which a file has a pack of its
	// own, so that a change of another does not copy it again.
	ownPackAbove = 1 << 20
	// maxOwnPacks bounds the packs of single files: each is a device to probe,
	// and the machine has 24 virtio-mmio slots.
	maxOwnPacks = 8
	maxPacks    = 18
)

// packs makes the disks that hold c, or finds them in the cache.
func (c *cargo) packs(ctx context.Context) ([]agentproto.Pack, []disk, error) {
	var groups [][]string
	var small []string
	for _, f := range c.files {
		if info, err := os.Stat(f); err == nil && info.Size() > ownPackAbove && len(groups) < maxOwnPacks {
			groups = append(groups, []string{f})
		} else {
			small = append(small, f)
		}
	}
	for _, group := range [][]string{c.libs, small} {
		if len(group) > 0 {
			groups = append(groups, group)
		}
	}
	for _, d := range c.dirs {
		groups = append(groups, []string{d})
	}
	if len(groups) > maxPacks {
		return nil, nil, &workload.Error{Op: "carry files into the lab",
			Err: fmt.Errorf("%d directories are more than %d", len(c.dirs), maxPacks-maxOwnPacks-2)}
	}
	var packs []agentproto.Pack
	var disks []disk
	for i, group := range groups {
		id := "pack" + strconv.Itoa(i)
		file, items, err := pack(ctx, group)
		if err != nil {
			return nil, nil, err
		}
		packs = append(packs, agentproto.Pack{Device: id, Items: items})
		disks = append(disks, disk{serial: id, path: file})
	}
	return packs, disks, nil
}

// keepPacks bounds the bytes of cached packs that are not in use.
const keepPacks = 2 << 30

// pack returns the EROFS image of paths, in the cache.
func pack(ctx context.Context, paths []string) (string, []agentproto.Item, error) {
	var sources []erofs.Source
	var items []agentproto.Item
	for i, p := range paths {
		fail := func(err error) error {
			return &workload.Error{Op: "carry " + p + " into the lab", Err: bare(err)}
		}
		target, err := filepath.EvalSymlinks(p)
		if err != nil {
			return "", nil, fail(err)
		}
		if f, err := os.Open(target); err != nil {
			return "", nil, fail(err)
		} else if err := f.Close(); err != nil {
			return "", nil, fail(err)
		}
		name := strconv.Itoa(i)
		sources = append(sources, erofs.Source{Path: target, At: "/" + name})
		items = append(items, agentproto.Item{Name: name, Path: p})
	}
	scan, err := erofs.ScanFiles(ctx, sources...)
	if err != nil {
		return "", nil, fmt.Errorf("carry files into the lab: %w", err)
	}
	file, err := hostdir.Cache("packs", scan.Fingerprint()+".erofs")
	if err != nil {
		return "", nil, err
	}
	err = hostdir.Make(ctx, file, func(f *os.File) error {
		_, err := scan.Write(ctx, f)
		return err
	})
	if err == nil {
		err = hostdir.Touch(file)
	}
	if err == nil {
		err = hostdir.Evict(filepath.Dir(file), keepPacks)
	}
	if err != nil {
		return "", nil, fmt.Errorf("carry files into the lab: %w", err)
	}
	return file, items, nil
}
