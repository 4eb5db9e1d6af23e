package container

import (
	"bufio"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/inside"
	"github.com/duplex-run/duplex/internal/workload"
)

// idMap says how ids in the container relate to the host's.
type idMap struct {
	rootless bool // in a user namespace
	// own: root's, of subuid and subgid, which it maps itself.
	own bool
	// single: only id 0 exists inside, and is the caller outside.
	single bool
	// helper: newuidmap(1) and newgidmap(1) map the ranges below.
	helper   bool
	uid, gid int
	subuid   idRange
	subgid   idRange
}

// idRange is a range of subordinate ids (subuid(5)).
type idRange struct{ start, count uint32 }

// planIDs picks the map: none for root; the caller's subordinate ids where they
// and the setuid helpers are installed; else just the caller as id 0, which
// allows no other user.
//
// With own, root gets a user namespace as well: of its subordinate ids, or of a
// range that id picks, so that two containers have no user in common.
func planIDs(u workload.User, own bool, id string) (idMap, error) {
	m := idMap{uid: os.Geteuid(), gid: os.Getegid()}
	if m.uid == 0 {
		if own {
			m.own, m.rootless = true, true
			m.ownRanges(id)
		}
		return m, m.inRange(u)
	}
	m.rootless = true
	why := m.findRanges()
	m.helper = why == nil
	m.single = why != nil
	switch {
	case m.single && (u.UID != 0 || u.GID != 0):
		return m, &workload.Error{
			Op:     fmt.Sprintf("container: run as user %d:%d", u.UID, u.GID),
			Err:    fmt.Errorf("only user 0 exists in this user namespace: %w", why),
			Remedy: "Run duplex as root, or give this account subordinate ids: install uidmap, then usermod --add-subuids 100000-165535 --add-subgids 100000-165535 NAME.",
		}
	}
	return m, m.inRange(u)
}

// inRange says whether the map has u. Without own, id 0 comes on top of the range.
func (m *idMap) inRange(u workload.User) error {
	most := func(r idRange) uint32 {
		if m.own {
			return r.count - 1
		}
		return r.count
	}
	if !m.helper && !m.own || u.UID <= most(m.subuid) && u.GID <= most(m.subgid) {
		return nil
	}
	return &workload.Error{
		Op:     fmt.Sprintf("container: run as user %d:%d", u.UID, u.GID),
		Err:    fmt.Errorf("this account has %d subordinate user ids and %d group ids", m.subuid.count, m.subgid.count),
		Remedy: "Give this account more subordinate ids in /etc/subuid and /etc/subgid, or run the container without a user namespace of its own.",
	}
}

// ownCount ids from ownFirst on, in ownSlots places, are the ranges that root
// takes when /etc/subuid gives it none: in the middle of what systemd sets aside
// for containers (524288 to 1879048191, UIDS-GIDS.md).
const (
	ownFirst = 1 << 30
	ownCount = 1 << 16
	ownSlots = 1 << 12
)

func (m *idMap) ownRanges(id string) {
	names := []string{"0", "root"}
	var err1, err2 error
	m.subuid, err1 = findRange("/etc/subuid", names)
	m.subgid, err2 = findRange("/etc/subgid", names)
	if err1 == nil && err2 == nil && m.subuid.count >= ownCount && m.subgid.count >= ownCount {
		return
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	m.subuid = idRange{ownFirst + h.Sum32()%ownSlots*ownCount, ownCount}
	m.subgid = m.subuid
}

// findRanges looks for what the helpers need; its error says what is missing.
func (m *idMap) findRanges() error {
	for _, helper := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(helper); err != nil {
			return fmt.Errorf("%s is not installed", helper)
		}
	}
	names := []string{strconv.Itoa(m.uid)}
	if u, err := user.LookupId(names[0]); err == nil {
		names = append(names, u.Username)
	}
	var err error
	if m.subuid, err = findRange("/etc/subuid", names); err != nil {
		return err
	}
	m.subgid, err = findRange("/etc/subgid", names)
	return err
}

// findRange returns the largest range that file gives one of names.
func findRange(file string, names []string) (idRange, error) {
	f, err := os.Open(file)
	if err != nil {
		return idRange{}, err
	}
	defer func() { _ = f.Close() }()
	var best idRange
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		name, r, ok := parseRange(sc.Text())
		if ok && r.count > best.count && (name == names[0] || name == names[len(names)-1]) {
			best = r
		}
	}
	if err := sc.Err(); err != nil {
		return idRange{}, fmt.Errorf("read %s: %w", file, err)
	}
	if best.count == 0 {
		return idRange{}, fmt.Errorf("%s has no entry for %s", file, names[len(names)-1])
	}
	return best, nil
}

// parseRange parses "name:start:count".
func parseRange(line string) (string, idRange, bool) {
	f := strings.Split(strings.TrimSpace(line), ":")
	if len(f) != 3 || f[0] == "" {
		return "", idRange{}, false
	}
	start, err1 := strconv.ParseUint(f[1], 10, 32)
	count, err2 := strconv.ParseUint(f[2], 10, 32)
	if err1 != nil || err2 != nil || count == 0 || start+count > 1<<32 {
		return "", idRange{}, false
	}
	return f[0], idRange{uint32(start), uint32(count)}, true
}

// apply sets up the user namespace of a process about to be started.
func (m idMap) apply(sys *syscall.SysProcAttr) {
	if !m.rootless {
		return
	}
	sys.Cloneflags |= unix.CLONE_NEWUSER
	if m.own {
		sys.UidMappings = []syscall.SysProcIDMap{{HostID: int(m.subuid.start), Size: int(m.subuid.count)}}
		sys.GidMappings = []syscall.SysProcIDMap{{HostID: int(m.subgid.start), Size: int(m.subgid.count)}}
		sys.GidMappingsEnableSetgroups = true
		sys.Credential = &syscall.Credential{} // user 0 there, with all capabilities
		return
	}
	if m.single {
		sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: m.uid, Size: 1}}
		sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: m.gid, Size: 1}}
		return
	}
	// Its execve comes before the map exists, and an unmapped user loses its
	// capabilities then, unless they are ambient.
	for c := range lastCap() + 1 {
		sys.AmbientCaps = append(sys.AmbientCaps, uintptr(c))
	}
}

// lastCap returns the highest capability of the running kernel.
func lastCap() int {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return unix.CAP_LAST_CAP
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 0 || n > 63 {
		return unix.CAP_LAST_CAP
	}
	return n
}

// write maps the ids of process pid with the helpers, if they are to.
func (m idMap) write(pid int) error {
	if !m.helper {
		return nil
	}
	return errors.Join(
		runHelper("newuidmap", pid, m.uid, m.subuid),
		runHelper("newgidmap", pid, m.gid, m.subgid))
}

func runHelper(helper string, pid, id int, r idRange) error {
	u := func(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
	out, err := exec.Command(helper, strconv.Itoa(pid),
		"0", strconv.Itoa(id), "1", "1", u(r.start), u(r.count)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", helper, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// sendImage mounts the image for a user namespace of root's, in which it may not
// be mounted, and whose ids its files are to have.
func (r *run) sendImage() error {
	if !r.ids.own {
		return nil
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", r.init.Pid))
	if err != nil {
		return r.blame(err)
	}
	defer func() { _ = ns.Close() }()
	m, err := inside.MountImage(r.spec.Rootfs, ns)
	if err != nil {
		return &handshake.StepError{Step: "mount the image", Err: err}
	}
	defer func() { _ = m.Close() }()
	return r.conn.SendFile(handshake.Message{Kind: handshake.KindRootfs}, int(m.Fd()))
}
