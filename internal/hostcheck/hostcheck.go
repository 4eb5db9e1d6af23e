package hostcheck

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// State is the outcome of a Check.
type State string

// The states. Warn is something that is missing but that duplex can do without.
const (
	OK   State = "ok"
	Warn State = "warn"
	Fail State = "fail"
)

// Check is one answer.
type Check struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

func ok(name, format string, args ...any) Check {
	return Check{Name: name, State: OK, Detail: fmt.Sprintf(format, args...)}
}

func bad(name string, s State, remedy, format string, args ...any) Check {
	return Check{Name: name, State: s, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

// Container answers for what the container isolation needs of the host.
func Container() []Check {
	return []Check{UserNamespaces(), Overlay(), EROFS(), Cgroup(), Seccomp()}
}

// UserNamespaces tries to make a user namespace in a child.
func UserNamespaces() Check {
	const name = "user namespaces"
	if err := try("userns"); err != nil {
		if os.Geteuid() == 0 {
			return bad(name, Warn, "only rootless containers need them", "%v", err)
		}
		return bad(name, Fail, "as root: sysctl user.max_user_namespaces=15000 (and kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0 where they exist)", "%v", err)
	}
	return ok(name, "a child made one")
}

// Overlay tries to mount an overlay in a child.
func Overlay() Check {
	if err := try("overlay"); err != nil {
		return bad("overlay", Fail, "as root: modprobe overlay; without root, Linux 5.11 or newer is needed", "%v", err)
	}
	return ok("overlay", "a child mounted one")
}

// EROFS says whether the kernel knows EROFS and mounts it from a plain file.
func EROFS() Check {
	known, err := filesystemKnown("erofs")
	if err != nil {
		return bad("erofs", Warn, "", "%v", err)
	}
	if !known {
		return bad("erofs", Warn, "as root: modprobe erofs; without it images are unpacked to directories", "not in /proc/filesystems")
	}
	major, minor := kernelVersion()
	if major > 6 || major == 6 && minor >= 12 {
		return ok("erofs", "known, mounts from a plain file (Linux %d.%d)", major, minor)
	}
	return bad("erofs", Warn, "images are mounted through a loop device (root) or unpacked to directories", "known; Linux %d.%d mounts it from block devices only, plain files need 6.12", major, minor)
}

// Cgroup says which cgroup version limits would go through and whether this
// user may make cgroups there.
func Cgroup() Check {
	const name = "cgroup"
	version, dir := cgroupLayout()
	if version == "" {
		return bad(name, Fail, "mount cgroup2 at /sys/fs/cgroup", "no cgroup file system is mounted")
	}
	if unix.Access(dir, unix.W_OK) == nil {
		return ok(name, "%s, %s is writable", version, dir)
	}
	return bad(name, Warn, "limits need a delegated cgroup: systemd-run --user --scope -p Delegate=yes duplex ... (cgroup v2), or root", "%s, %s is not writable: no limits", version, dir)
}

func cgroupLayout() (version, dir string) {
	var st unix.Statfs_t
	const root = "/sys/fs/cgroup"
	if unix.Statfs(root, &st) != nil {
		return "", ""
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		own, err := os.ReadFile("/proc/self/cgroup")
		path := strings.TrimSpace(strings.TrimPrefix(string(own), "0::"))
		if err != nil || path == "/" || !strings.HasPrefix(path, "/") {
			return "v2", root
		}
		return "v2", filepath.Join(root, path)
	}
	memory := filepath.Join(root, "memory")
	if unix.Statfs(memory, &st) != nil || st.Type != unix.CGROUP_SUPER_MAGIC {
		return "", ""
	}
	if unix.Statfs(filepath.Join(root, "unified"), &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return "hybrid (v1 controllers)", memory
	}
	return "v1", memory
}

// Seccomp asks the kernel for the filter actions it knows.
func Seccomp() Check {
	actions, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil {
		return bad("seccomp", Fail, "a kernel with CONFIG_SECCOMP_FILTER is needed", "%v", err)
	}
	if !strings.Contains(string(actions), "errno") {
		return bad("seccomp", Fail, "a kernel with CONFIG_SECCOMP_FILTER is needed", "no errno action among: %s", bytes.TrimSpace(actions))
	}
	return ok("seccomp", "filters with %s", bytes.TrimSpace(actions))
}

// TUN opens /dev/net/tun.
func TUN() Check {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		remedy := "as root: modprobe tun; only microVM networks by TAP need it"
		return bad("tun", Warn, remedy, "%v", err)
	}
	_ = f.Close()
	return ok("tun", "/dev/net/tun opens")
}

// Lab says whether the lab machine can be started.
func Lab() Check {
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return bad("lab", Warn, "apt-get install qemu-system-x86", "qemu-system-x86_64 is not installed")
	}
	return ok("lab", "%s", path)
}

func filesystemKnown(name string) (bool, error) {
	data, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == name {
			return true, nil
		}
	}
	return false, nil
}

func kernelVersion() (major, minor int) {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return 0, 0
	}
	parts := strings.SplitN(unix.ByteSliceToString(u.Release[:]), ".", 3)
	if len(parts) < 2 {
		return 0, 0
	}
	major, _ = strconv.Atoi(parts[0])
	minor, _ = strconv.Atoi(strings.TrimFunc(parts[1], func(r rune) bool { return r < '0' || r > '9' }))
	return major, minor
}

// childFlag is argv[0] of the process that try starts.
const childFlag = "duplex-hostcheck"

// Child must be called first thing in main: it does not return in a process
// that a check started.
func Child() {
	if len(os.Args) != 2 || os.Args[0] != childFlag {
		return
	}
	if err := inChild(os.Args[1]); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func inChild(what string) error {
	if what == "userns" {
		return nil // being here is the answer
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/tmp", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir("/tmp/"+d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("overlay", "/tmp/merged", "overlay", 0, "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	return nil
}

// try runs a check in a child with its own mount namespace, and its own user
// namespace when this is not root (or when that is the question).
func try(what string) error {
	cmd := exec.Command("/proc/self/exe", what)
	cmd.Args[0] = childFlag
	cmd.SysProcAttr = sysProcAttr(what == "userns" || os.Geteuid() != 0)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && stderr.Len() > 0 {
		return errors.New(strings.TrimSpace(stderr.String()))
	}
	return err
}
func sysProcAttr(userns bool) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if userns {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return attr
}
