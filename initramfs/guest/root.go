package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/launch"
)

// Where the layers are while the initramfs is the root. They stay mounted, out
// of sight, after the switch.
const (
	lowerDir = "/lower"
	rwDir    = "/rw"
	newRoot  = "/newroot"
)

// mountRoot mounts device read-only with a tmpfs over it on newRoot, and the
// agent's own mounts below it. Without a device the root starts empty. It
// returns the directory that holds what is written.
func mountRoot(device string) (*os.Root, error) {
	for _, d := range []string{lowerDir, rwDir, newRoot} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := (mount{source: "rw", target: rwDir, kind: "tmpfs", data: "mode=0755"}).do(); err != nil {
		return nil, err
	}
	if device != "" {
		dev, err := blockDevice("/sys/block", device)
		if err != nil {
			return nil, err
		}
		if err := (mount{source: dev, target: lowerDir, kind: "erofs", flags: unix.MS_RDONLY}).do(); err != nil {
			return nil, err
		}
	}
	upper, err := overlay(lowerDir, rwDir, newRoot)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"/dev", "/proc", "/sys"} {
		if err := os.MkdirAll(newRoot+d, 0o755); err != nil {
			return nil, err
		}
		if err := unix.Mount(d, newRoot+d, "", unix.MS_MOVE, ""); err != nil {
			return nil, fmt.Errorf("move %s: %w", d, err)
		}
	}
	return upper, nil
}

// overlay mounts lower with a writable layer in rw on target and returns the
// directory that holds what is written.
func overlay(lower, rw, target string) (*os.Root, error) {
	upper, work := filepath.Join(rw, "upper"), filepath.Join(rw, "work")
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	// The root of an overlay takes its mode and owner from the upper layer.
	var st unix.Stat_t
	if err := unix.Stat(lower, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", lower, err)
	}
	if err := os.Chown(upper, int(st.Uid), int(st.Gid)); err != nil {
		return nil, err
	}
	if err := unix.Chmod(upper, st.Mode&0o7777); err != nil {
		return nil, fmt.Errorf("chmod %s: %w", upper, err)
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work)
	if err := (mount{source: "overlay", target: target, kind: "overlay", data: data}).do(); err != nil {
		return nil, err
	}
	return os.OpenRoot(upper)
}

// switchRoot makes newRoot the root of the agent and all its children.
func switchRoot() error {
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	return os.Chdir("/")
}

// deviceWait bounds how long a block device may take to appear.
const deviceWait = 10 * time.Second

// blockDevice finds the block device with that name or virtio-blk serial
// number (virtio 1.2, 5.2.6: VIRTIO_BLK_T_GET_ID). The driver scans a disk
// apart from binding to it, hence the wait.
func blockDevice(class, id string) (string, error) {
	deadline := time.Now().Add(deviceWait)
	for {
		entries, err := os.ReadDir(class)
		if err != nil {
			return "", err
		}
		for _, e := range entries {
			serial, _ := os.ReadFile(filepath.Join(class, e.Name(), "serial"))
			if e.Name() == id || strings.TrimSpace(string(serial)) == id {
				return "/dev/" + e.Name(), nil
			}
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("no block device %q", id)
		}
		time.Sleep(time.Millisecond)
	}
}

// enterRoot makes the file system on device the root, with all that belongs below
// it, and returns the directory that holds what is written.
func enterRoot(device string) (*os.Root, error) {
	upper, err := mountRoot(device)
	if err != nil {
		return nil, err
	}
	if err := switchRoot(); err != nil {
		return nil, err
	}
	return upper, mountRest()
}

// prepareRoot is everything between the spec and the workload's process.
func prepareRoot(start *agentproto.Start, saved *stage) (*carried, error) {
	if len(start.Shares) > 0 {
		if err := saved.load("virtiofs"); err != nil {
			return nil, err
		}
	}
	upper, err := saved.enterRoot(start.Root)
	if err != nil {
		return nil, err
	}
	// Before the shares: one on /etc is the host's.
	if err := writeNames("/etc", launch.Hostname(start.Spec), start.Network); err != nil {
		return nil, err
	}
	if err := mountShares(start.Shares); err != nil {
		return nil, err
	}
	if start.Lab == nil {
		return nil, nil
	}
	if err := mountLab(); err != nil {
		return nil, err
	}
	c := &carried{root: upper, back: start.Lab.Return, skip: start.Lab.Skip}
	return c, c.place(start.Lab.Packs)
}
