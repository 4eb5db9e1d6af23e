package container

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/testutil/attack"
)

// work is what runs in the containers of these tests: small commands, so that
// the tests need no image.
func work(args []string) int {
	commands := map[string]func([]string) error{
		"echo":   func(a []string) error { _, err := fmt.Println(strings.Join(a, "\n")); return err },
		"cat":    workCat,
		"view":   workView,
		"try":    workTry,
		"sleep":  workSleep,
		"hog":    workHog,
		"fork":   workFork,
		"spin":   workSpin,
		"orphan": workOrphan,
		"trap":   workTrap,
		"tty":    workTTY,
		"flood":  workFlood,
		"suicide": func(a []string) error {
			n, _ := strconv.Atoi(a[0])
			_ = unix.Kill(os.Getpid(), unix.Signal(n))
			select {}
		},
		"stat":   func(a []string) error { i, err := os.Stat(a[0]); fmt.Printf("%o\n", i.Mode().Perm()); return err },
		"put":    func(a []string) error { return os.WriteFile(a[0], []byte(a[1]), 0o644) },
		"net":    workNet,
		"dial":   workDial,
		"serve":  workServe,
		"say":    workSay,
		"stream": workStream,
		"lookup": workLookup,
		"catany": func(a []string) error { // the first there is
			for _, f := range a {
				if b, err := os.ReadFile(f); err == nil {
					_, err = os.Stdout.Write(b)
					return err
				}
			}
			return nil
		},
		"statfs": func(a []string) error {
			var st unix.Statfs_t
			err := unix.Statfs(a[0], &st)
			fmt.Println(int64(st.Blocks) * st.Bsize)
			return err
		},
		"segv": func([]string) error { workSegv(); return nil },
	}
	if args[0] == "exit" {
		n, _ := strconv.Atoi(args[1])
		return n
	}
	if do, ok := attack.Commands[args[0]]; ok {
		do(args[1:])
		return 0
	}
	run, ok := commands[args[0]]
	if !ok {
		fmt.Fprintln(os.Stderr, "work: unknown", args[0])
		return 99
	}
	if err := run(args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "work:", err)
		return 98
	}
	return 0
}

func workCat(files []string) error {
	if len(files) == 0 {
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		_, _ = os.Stdout.Write(b)
	}
	return nil
}

func workSleep([]string) error {
	fmt.Println("sleeping")
	time.Sleep(time.Minute)
	return nil
}

// workHog uses memory until it is killed.
func workHog(args []string) error {
	n, _ := strconv.Atoi(args[0])
	var keep [][]byte
	for range n {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		keep = append(keep, b)
	}
	fmt.Println("used", len(keep))
	return nil
}

// workFork starts n sleeping processes and says how many it got.
func workFork(args []string) error {
	n, _ := strconv.Atoi(args[0])
	started := 0
	for range n {
		if err := exec.Command("/bin/work", "sleep").Start(); err != nil {
			fmt.Println("started", started, err)
			return nil
		}
		started++
	}
	fmt.Println("started", started)
	return nil
}

// workSpin uses the given milliseconds of processor time and prints how often the
// CPU limit stopped it meanwhile.
func workSpin(args []string) error {
	ms, _ := strconv.Atoi(args[0])
	for used := time.Duration(0); used < time.Duration(ms)*time.Millisecond; {
		var ru unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
			return err
		}
		used = time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
	for _, f := range []string{"/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat", "/sys/fs/cgroup/cpu,cpuacct/cpu.stat"} {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if n, ok := strings.CutPrefix(line, "nr_throttled "); ok {
				fmt.Print("throttled ", n)
			}
		}
	}
	return nil
}

// workOrphan leaves a grandchild behind, which must not keep the run alive.
func workOrphan([]string) error {
	c := exec.Command("/bin/work", "sleep")
	c.Stdout = os.Stdout
	return c.Start()
}

// workTrap prints the signals it gets; INT ends it with 7.
func workTrap([]string) error {
	ch := make(chan os.Signal, 10)
	signal.Notify(ch, unix.SIGHUP, unix.SIGINT, unix.SIGUSR1)
	fmt.Println("ready")
	for s := range ch {
		fmt.Println(s)
		if s == unix.SIGINT {
			os.Exit(7)
		}
	}
	return nil
}

func workFlood(args []string) error {
	n, _ := strconv.ParseInt(args[0], 10, 64)
	w := bufio.NewWriterSize(os.Stdout, 1<<16)
	line := []byte(strings.Repeat("x", 1023) + "\n")
	for range n / 1024 {
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	return w.Flush()
}

// workTTY prints what it sees of its terminal.
func workTTY([]string) error {
	for fd := range 3 {
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
			return fmt.Errorf("descriptor %d is no terminal: %w", fd, err)
		}
	}
	link, err := os.Readlink("/proc/self/fd/0")
	if err != nil {
		return err
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer tty.Close()
	console, err := os.Stat("/dev/console")
	if err != nil {
		return err
	}
	ch := make(chan os.Signal, 10)
	signal.Notify(ch, unix.SIGWINCH)
	size := func() { ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); fmt.Println("size", ws.Row, ws.Col, err) }
	fmt.Println("link", link, "console", console.Mode()&os.ModeCharDevice != 0)
	size()
	<-ch
	size()
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	fmt.Printf("line %q %v\n", line, err)
	return nil
}

// view is what a workload sees of its container.
type view struct {
	Status   map[string]string // of /proc/self/status
	FDs      map[string]string
	Cwd      string
	Env      []string
	Hostname string
	Dev      []string
	Mounts   []string // "point options" of each mount
	Cgroup   string
	Init     string // /proc/1/cmdline
	Links    map[string]string
	Lo       string
	UIDMap   string

	InitThreads string
	Limits      []string
}

func workView([]string) error {
	v := view{Status: map[string]string{}, FDs: map[string]string{}, Links: map[string]string{}, Env: os.Environ()}
	read := func(f string) string { b, _ := os.ReadFile(f); return string(b) }
	for line := range strings.Lines(read("/proc/self/status")) {
		k, val, _ := strings.Cut(line, ":")
		v.Status[k] = strings.Join(strings.Fields(val), " ")
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, f := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil {
			v.FDs[f.Name()] = to
		}
	}
	v.Cwd, _ = os.Getwd()
	v.Hostname, _ = os.Hostname()
	entries, _ := os.ReadDir("/dev")
	for _, e := range entries {
		v.Dev = append(v.Dev, e.Name())
		if to, err := os.Readlink("/dev/" + e.Name()); err == nil {
			v.Links[e.Name()] = to
		}
	}
	for line := range strings.Lines(read("/proc/self/mountinfo")) {
		f := strings.Fields(line)
		v.Mounts = append(v.Mounts, f[4]+" "+f[5])
	}
	v.Cgroup, v.Init, v.UIDMap = read("/proc/self/cgroup"), read("/proc/1/cmdline"), read("/proc/self/uid_map")
	v.Lo = strings.TrimSpace(read("/sys/class/net/lo/flags"))
	v.Limits = strings.Split(read("/proc/self/limits"), "\n")
	_, after, _ := strings.Cut(read("/proc/1/status"), "Threads:\t")
	v.InitThreads, _, _ = strings.Cut(after, "\n")
	return json.NewEncoder(os.Stdout).Encode(v)
}

// workTry makes attempts that must fail and prints each one's outcome.
func workTry([]string) error {
	try := func(name string, f func() error) { fmt.Printf("%s: %v\n", name, f()) }
	open := func(path string, flags int) func() error {
		return func() error {
			f, err := os.OpenFile(path, flags, 0)
			if err == nil {
				b := make([]byte, 1)
				_, err = f.Read(b)
				_ = f.Close()
			}
			return bareErr(err)
		}
	}
	try("mount", func() error { return unix.Mount("x", "/tmp", "tmpfs", 0, "") })
	try("unshare", func() error { return unix.Unshare(unix.CLONE_NEWNS) })
	try("unshare user", func() error { return unix.Unshare(unix.CLONE_NEWUSER) })
	try("umount", func() error { return unix.Unmount("/proc/keys", unix.MNT_DETACH) })
	try("sethostname", func() error { return unix.Sethostname([]byte("x")) })
	try("keyctl", func() error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false); return err })
	try("bpf", func() error { _, _, e := unix.Syscall(unix.SYS_BPF, 0, 0, 0); return e })
	try("clone3", func() error { _, _, e := unix.Syscall(unix.SYS_CLONE3, 0, 0, 0); return e })
	try("syscall 4000", func() error { _, _, e := unix.Syscall(4000, 0, 0, 0); return e })
	try("ptrace init", func() error { return unix.PtraceAttach(1) })
	try("init exe", func() error { _, err := os.Readlink("/proc/1/exe"); return bareErr(err) })
	try("init root", func() error { _, err := os.ReadDir("/proc/1/root"); return bareErr(err) })
	try("init mem", open("/proc/1/mem", os.O_RDWR))
	try("init environ", open("/proc/1/environ", os.O_RDONLY))
	try("stop init", func() error { return unix.Kill(1, unix.SIGTERM) })
	try("sysrq", open("/proc/sysrq-trigger", os.O_WRONLY))
	try("write sysctl", open("/proc/sys/kernel/hostname", os.O_WRONLY))
	try("write sys", open("/sys/kernel/mm/ksm/run", os.O_WRONLY))
	try("timer_list", open("/proc/timer_list", os.O_RDONLY))
	try("firmware", func() error { _, err := os.ReadDir("/sys/firmware/acpi"); return bareErr(err) })
	for _, dir := range []string{"/", "/dev", "/tmp", "/dev/shm"} {
		path := filepath.Join(dir, "mem")
		try("mknod "+dir, func() error { return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) })
		try("open node in "+dir, open(path, os.O_RDWR))
	}
	for _, dev := range []string{"null", "zero", "full", "random", "urandom"} {
		try("use "+dev, func() error {
			f, err := os.OpenFile("/dev/"+dev, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := f.Read(make([]byte, 1)); err != nil && err != io.EOF {
				return err
			}
			_, err = f.Write([]byte("x"))
			return bareErr(err)
		})
	}
	return nil
}

func bareErr(err error) error {
	for err != nil {
		u, ok := err.(interface{ Unwrap() error })
		if !ok || slices.Contains([]error{io.EOF}, err) {
			return err
		}
		err = u.Unwrap()
	}
	return nil
}
