package oci

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
)

// attrOptions are the options that are attributes of the mount (mount_setattr(2)
// and config.md, "Linux mount options"). With an r in front they hold for the
// mounts below too.
var attrOptions = map[string]struct {
	attr  uint64
	clear bool
}{
	"ro": {unix.MOUNT_ATTR_RDONLY, false}, "rw": {unix.MOUNT_ATTR_RDONLY, true},
	"nosuid": {unix.MOUNT_ATTR_NOSUID, false}, "suid": {unix.MOUNT_ATTR_NOSUID, true},
	"nodev": {unix.MOUNT_ATTR_NODEV, false}, "dev": {unix.MOUNT_ATTR_NODEV, true},
	"noexec": {unix.MOUNT_ATTR_NOEXEC, false}, "exec": {unix.MOUNT_ATTR_NOEXEC, true},
	"nodiratime": {unix.MOUNT_ATTR_NODIRATIME, false}, "diratime": {unix.MOUNT_ATTR_NODIRATIME, true},
	"nosymfollow": {unix.MOUNT_ATTR_NOSYMFOLLOW, false}, "symfollow": {unix.MOUNT_ATTR_NOSYMFOLLOW, true},
	"noatime": {unix.MOUNT_ATTR_NOATIME, false}, "atime": {unix.MOUNT_ATTR_NOATIME, true},
	"relatime": {unix.MOUNT_ATTR_RELATIME, false}, "norelatime": {unix.MOUNT_ATTR_RELATIME, true},
	"strictatime": {unix.MOUNT_ATTR_STRICTATIME, false}, "nostrictatime": {unix.MOUNT_ATTR_STRICTATIME, true},
}

// atime are the options of which the last one counts: values of one field.
var atime = []string{"atime", "noatime", "relatime", "norelatime", "strictatime", "nostrictatime"}

var propagationOptions = map[string]uintptr{
	"shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
	"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC,
	"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC,
	"unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}

// superOptions are options of the file system that mount(2) spells as flags;
// false: the flag's absence, which is the default.
var superOptions = map[string]bool{
	"sync": true, "async": false, "dirsync": true, "lazytime": true, "nolazytime": false,
	"mand": true, "nomand": false, "iversion": true, "noiversion": false,
	"silent": false, "loud": false, "defaults": false,
}

// refusedOptions are known and not supported.
var refusedOptions = []string{"remount", "bind-try", "rbind-try"}

// rootPropagation returns the MS_* flags of linux.rootfsPropagation.
func rootPropagation(name string) (uintptr, error) {
	if name == "" {
		return 0, nil
	}
	if p, ok := propagationOptions[name]; ok {
		return p | unix.MS_REC, nil
	}
	return 0, fmt.Errorf("linux.rootfsPropagation: %q is not known", name)
}

func checkMounts(s *specs.Spec) error {
	for i, m := range s.Mounts {
		p, err := mountPlan(m)
		if err == nil {
			err = checkIDMap(s, m, p.Type == "")
		}
		if err != nil {
			return fmt.Errorf("mounts[%d] (%s): %w", i, m.Destination, err)
		}
		for _, list := range [][]specs.LinuxIDMapping{m.UIDMappings, m.GIDMappings} {
			if err := checkMap("idmap", list); err != nil {
				return fmt.Errorf("mounts[%d] (%s): %w", i, m.Destination, err)
			}
		}
	}
	return nil
}

// mountPlan turns a mount of the bundle into what init executes. A relative
// source of a bind is the caller's to resolve.
func mountPlan(m specs.Mount) (handshake.Mount, error) {
	out := handshake.Mount{Type: m.Type, Source: m.Source, Dest: path.Clean("/" + m.Destination)}
	for what, v := range map[string]string{"destination": m.Destination, "source": m.Source, "type": m.Type} {
		if err := plain(what, v); err != nil {
			return out, err
		}
	}
	if m.Destination == "" {
		return out, fmt.Errorf("destination is missing")
	}
	if out.Dest == "/" {
		return out, unsupported("a mount on /", "that is root's place")
	}
	bind := m.Type == "bind"
	for _, o := range m.Options {
		key, _, _ := strings.Cut(o, "=")
		bind = bind || key == "bind" || key == "rbind"
	}
	if bind {
		out.Type = ""
		if m.Source == "" {
			return out, fmt.Errorf("source is missing")
		}
	} else if m.Type == "" {
		return out, fmt.Errorf("type is missing")
	}
	for _, o := range m.Options {
		if err := mountOption(&out, o, bind); err != nil {
			return out, err
		}
	}
	return out, nil
}

func mountOption(out *handshake.Mount, o string, bind bool) error {
	key, value, hasValue := strings.Cut(o, "=")
	if err := plain("option", o); err != nil || o == "" {
		return err
	}
	if hasValue {
		return dataOption(out, key, value)
	}
	if p, ok := propagationOptions[o]; ok {
		out.Propagation = append(out.Propagation, p)
		return nil
	}
	if a, ok := attrOptions[o]; ok {
		setAttr(&out.Set, &out.Clear, o, a.attr, a.clear)
		return nil
	}
	if a, ok := attrOptions[strings.TrimPrefix(o, "r")]; ok && strings.HasPrefix(o, "r") {
		setAttr(&out.RecSet, &out.RecClear, o[1:], a.attr, a.clear)
		return nil
	}
	switch o {
	case "bind":
		return nil
	case "rbind":
		out.Recursive = true
		return nil
	case "tmpcopyup":
		if out.Type != "tmpfs" {
			return fmt.Errorf("option tmpcopyup: only for a tmpfs")
		}
		out.CopyUp = true
		return nil
	case "idmap", "ridmap": // see mapMounts
		return nil
	case "copy-symlink", "src-nofollow", "dest-nofollow":
		if o == "src-nofollow" && bind {
			out.NoFollow = true
			return nil
		}
		return unsupported("option "+o, "it is another runtime's")
	}
	if slices.Contains(refusedOptions, o) {
		return unsupported("option "+o, "every mount is made once, with its options: give them to the entry that makes it")
	}
	if set, ok := superOptions[o]; ok && (bind && set) {
		return unsupported("option "+o, "a bind mount does not change its file system")
	} else if ok && !set {
		return nil
	}
	return dataOption(out, o, "")
}

// dataOption passes an option to the file system. A bind mount has none to pass
// it to, see warnings.
func dataOption(out *handshake.Mount, key, value string) error {
	if key == "source" {
		return fmt.Errorf("option source: that is a property of the mount")
	}
	out.Data = append(out.Data, handshake.Setting{Key: key, Value: value})
	return nil
}

// setAttr lets the last of two options that contradict each other count.
func setAttr(set, unset *uint64, name string, attr uint64, clear bool) {
	if slices.Contains(atime, name) {
		// One field of several bits: it is cleared as a whole, then set.
		*unset |= unix.MOUNT_ATTR__ATIME
		*set &^= unix.MOUNT_ATTR__ATIME
		if !clear {
			*set |= attr
		}
		return
	}
	if clear {
		*unset |= attr
		*set &^= attr
		return
	}
	*set |= attr
	*unset &^= attr
}

// KnownMountOptions lists the options that do not go to the file system, sorted.
func KnownMountOptions() []string {
	out := []string{"bind", "rbind", "tmpcopyup", "idmap", "ridmap", "src-nofollow"}
	for o := range attrOptions {
		out = append(out, o, "r"+o)
	}
	for o := range propagationOptions {
		out = append(out, o)
	}
	for o := range superOptions {
		out = append(out, o)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
