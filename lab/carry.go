package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/duplex-run/duplex/image/erofs"
	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/workload"
)

// cargo finds out what has to be carried for o.
func (o *Options) cargo() (*cargo, error) {
	c := &cargo{back: []string{o.Cwd}}
	if path, err := exec.LookPath(o.Argv[0]); err == nil {
		if strings.Contains(o.Argv[0], "/") {
			if err := c.add(path); err != nil {
				return nil, err
			}
		}
	}
	for _, path := range o.Carry {
		if err := c.add(path); err != nil {
			return nil, err
		}
		if info, err := os.Stat(path); err != nil {
			return nil, &workload.Error{Op: "carry " + path + " into the lab", Err: err}
		} else if info.IsDir() {
			abs, _ := filepath.Abs(path)
			c.back = append(c.back, abs)
		}
	}
	return c, nil
}

// pack makes a disk of each item, or finds it in the cache.
func (c *cargo) pack(ctx context.Context) ([]agentproto.Pack, []disk, error) {
	var packs []agentproto.Pack
	var disks []disk
	for i, path := range c.items {
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return nil, nil, &workload.Error{Op: "carry " + path + " into the lab", Err: err}
		}
		scan, err := erofs.ScanFiles(ctx, erofs.Source{Path: real, At: "/item"})
		if err != nil {
			return nil, nil, fmt.Errorf("carry %s: %w", path, err)
		}
		file, err := hostdir.Cache("packs", scan.Fingerprint()+".erofs")
		if err != nil {
			return nil, nil, err
		}
		err = hostdir.Make(ctx, file, func(f *os.File) error {
			_, err := scan.Write(ctx, f)
			return err
		})
		if err != nil {
			return nil, nil, fmt.Errorf("carry %s: %w", path, err)
		}
		disks = append(disks, disk{serial: serial(i), path: file})
		packs = append(packs, agentproto.Pack{Device: serial(i), Items: []agentproto.Item{{Name: "item", Path: path}}})
	}
	return packs, disks, nil
}
