package oci

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/program"
)

// wantsIDMap reports whether a mount is to have ids of its own (config.md,
// "uidMappings"): by a map, or by an option that takes the container's.
func wantsIDMap(m specs.Mount) bool {
	return len(m.UIDMappings)+len(m.GIDMappings) > 0 || slices.Contains(m.Options, "idmap") || slices.Contains(m.Options, "ridmap")
}

// checkIDMap checks what wantsIDMap found.
func checkIDMap(s *specs.Spec, m specs.Mount, bind bool) error {
	switch {
	case !wantsIDMap(m):
		return nil
	case !bind:
		return unsupported("an id map of anything but a bind mount", "duplex does not map it")
	case (len(m.UIDMappings) == 0) != (len(m.GIDMappings) == 0):
		return errors.New("uidMappings and gidMappings need each other")
	case len(m.UIDMappings) == 0 && !newNamespace(s, specs.UserNamespace):
		return errors.New("option idmap without uidMappings needs a new user namespace, whose map it takes")
	}
	return nil
}

// mapMounts makes the bind mounts with ids of their own, here, because a user
// namespace may not, and hands them to the child to attach.
func (c *Container) mapMounts(l *layout, p *handshake.Plan) error {
	for i, m := range c.Spec.Mounts {
		if !wantsIDMap(m) {
			continue
		}
		f, err := mapMount(p.Files.Mounts[i], m, c.Spec.Linux)
		if err != nil {
			return &handshake.StepError{Step: "map the ids of " + m.Destination, Err: err}
		}
		p.Files.Mounts[i].FD = l.add(f)
	}
	return nil
}

func mapMount(p handshake.Mount, m specs.Mount, l *specs.Linux) (*os.File, error) {
	ids := &specs.Linux{UIDMappings: m.UIDMappings, GIDMappings: m.GIDMappings}
	if len(m.UIDMappings) == 0 {
		ids = l
	}
	ns, err := userNamespace(ids)
	if err != nil {
		return nil, err
	}
	defer func() { _ = ns.Close() }()
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if p.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, p.Source, flags)
	if err != nil {
		return nil, fmt.Errorf("open_tree %s: %w", p.Source, err)
	}
	f := os.NewFile(uintptr(fd), p.Source)
	flags = unix.AT_EMPTY_PATH
	if slices.Contains(m.Options, "ridmap") {
		flags |= unix.AT_RECURSIVE
	}
	err = unix.MountSetattr(fd, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mount_setattr: %w", err), f.Close())
	}
	return f, nil
}

// userNamespace makes a user namespace with those maps and no process in it: the
// one it takes to make it is killed before it gets anything to do.
func userNamespace(ids *specs.Linux) (*os.File, error) {
	exe, err := program.Open()
	if err != nil {
		return nil, err
	}
	conn, end, err := handshake.Pair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.F.Close() }()
	l := &layout{files: []*os.File{nil, nil, nil}}
	defer l.close()
	l.add(end)
	l.add(exe)
	sys := &syscall.SysProcAttr{Setsid: true}
	mapIDs(ids, sys)
	sys.Credential = nil // user 0 may not be in the map
	ch, err := l.start(0, sys, conn, func() error { return nil })
	if err != nil {
		return nil, err
	}
	f, err := openNamespace(specs.UserNamespace, fmt.Sprintf("/proc/%d/ns/user", ch.pid))
	ch.kill()
	_, werr := ch.process.Wait()
	if err = errors.Join(err, werr); err != nil && f != nil {
		_ = f.Close()
		return nil, err
	}
	return f, err
}
