// Command helper is the workload of the end-to-end tests: it ends, dies, reads,
// writes and lists in the ways that the tests look at.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) < 2 {
		fail("usage: helper exit|kill|sleep|spam|cat|both|list|touch|about|terminal|sysrq|reboot ...")
	}
	defaultAction(unix.SIGHUP, unix.SIGINT, unix.SIGSEGV, unix.SIGTERM, unix.SIGUSR1)
	arg := ""
	if len(os.Args) > 2 {
		arg = os.Args[2]
	}
	switch os.Args[1] {
	case "exit":
		os.Exit(number(arg))
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.Signal(number(arg)))
		time.Sleep(time.Hour)
	case "sleep":
		fmt.Println("sleeping")
		time.Sleep(time.Hour)
	case "spam":
		spam(int64(number(arg)))
	case "cat":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			fail("cat: %v", err)
		}
	case "both":
		fmt.Fprint(os.Stdout, "to stdout")
		fmt.Fprint(os.Stderr, "to stderr")
	case "list":
		list(arg)
	case "touch":
		if err := os.WriteFile(arg, []byte("x"), 0o600); err != nil {
			fail("touch: %v", err)
		}
	case "about":
		about()
	case "terminal":
		ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			fail("terminal: %v", err)
		}
		fmt.Printf("terminal %dx%d\n", ws.Row, ws.Col)
		time.Sleep(time.Hour)
	case "sysrq":
		if err := os.WriteFile("/proc/sysrq-trigger", []byte(arg), 0); err != nil {
			fail("sysrq: %v", err)
		}
		time.Sleep(time.Hour)
	case "reboot":
		if err := unix.Reboot(number(arg)); err != nil {
			fail("reboot: %v", err)
		}
		time.Sleep(time.Hour)
	default:
		fail("helper: unknown command %q", os.Args[1])
	}
}

// spam writes n bytes whose hash the test can compute.
func spam(n int64) {
	line := []byte(strings.Repeat("0123456789abcdef", 4096))
	for n > 0 {
		if int64(len(line)) > n {
			line = line[:n]
		}
		if _, err := os.Stdout.Write(line); err != nil {
			fail("spam: %v", err)
		}
		n -= int64(len(line))
	}
}

// about prints what the flags should have set.
func about() {
	host, _ := os.Hostname()
	cwd, _ := os.Getwd()
	groups, _ := os.Getgroups()
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{
		"hostname": host, "cwd": cwd, "uid": os.Getuid(), "gid": os.Getgid(),
		"groups": groups, "env": os.Environ(), "args": os.Args[2:],
		"tty": isTTY(0) && isTTY(1),
	})
}

func isTTY(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// list prints one line a file below root: type, mode, owner, size, device, link
// target, extended attributes, hash of the content, and for hard links the
// first name of the same inode.
func list(root string) {
	out := bufio.NewWriter(os.Stdout)
	first := make(map[uint64]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		switch rel {
		case "proc", "sys", "dev": // the isolation's own
			return fs.SkipDir
		case ".":
			return nil
		}
		line, err := describe(path, rel, first)
		if err != nil {
			return err
		}
		_, err = out.WriteString(line + "\n")
		return err
	})
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		fail("list: %v", err)
	}
}

func describe(path, rel string, first map[uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", fmt.Errorf("lstat %s: %w", path, err)
	}
	f := []string{fmt.Sprintf("%q %o %d:%d", rel, st.Mode, st.Uid, st.Gid)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		sum, err := hash(path)
		if err != nil {
			return "", err
		}
		f = append(f, fmt.Sprint(st.Size), sum)
		if st.Nlink > 1 {
			if _, ok := first[st.Ino]; !ok {
				first[st.Ino] = rel
			}
			f = append(f, fmt.Sprintf("links=%d first=%q", st.Nlink, first[st.Ino]))
		}
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		f = append(f, "-> "+strconv.Quote(target))
	case unix.S_IFCHR, unix.S_IFBLK:
		f = append(f, fmt.Sprintf("dev=%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	}
	x, err := xattrs(path)
	return strings.Join(append(f, x...), " "), err
}

func hash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

func xattrs(path string) ([]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		if err == unix.ENOTSUP {
			return nil, nil
		}
		return nil, fmt.Errorf("llistxattr %s: %w", path, err)
	}
	var out []string
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		m, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("lgetxattr %s %s: %w", path, name, err)
		}
		out = append(out, fmt.Sprintf("%s=%x", name, value[:m]))
	}
	slices.Sort(out)
	return out, nil
}

func number(s string) int {
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		fail("helper: %v", err)
	}
	return int(n)
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(99)
}
