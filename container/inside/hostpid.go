package inside

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// In the host's PID namespace init is no PID 1: the kernel kills nothing when it
// ends. So it takes orphans on as its children and kills them all itself. What
// escapes it, when it is killed, is killed with the container's cgroup.

// tasks are this process's threads, whose children the workload's processes are.
var tasks *os.File

// adopt makes this process the parent of its descendants' orphans.
func adopt() (err error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of orphans: %w", err)
	}
	tasks, err = os.Open("/proc/self/task")
	return err
}

// killChildren kills this process's descendants: children of those that are
// killed become its own. The kernel says of none left by ECHILD.
func killChildren() {
	for {
		for _, pid := range children() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if _, err := unix.Wait4(-1, nil, 0, nil); err == unix.ECHILD {
			return
		}
	}
}

func children() []int {
	var out []int
	if _, err := tasks.Seek(0, 0); err != nil {
		return nil
	}
	names, _ := tasks.Readdirnames(-1)
	for _, name := range names {
		f, err := openEntry(int(tasks.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			continue // it has ended
		}
		list, err := openEntry(int(f.Fd()), "children", unix.O_RDONLY)
		_ = f.Close()
		if err != nil {
			continue
		}
		buf := make([]byte, 1<<16)
		n, _ := unix.Read(int(list.Fd()), buf)
		_ = list.Close()
		for _, pid := range strings.Fields(string(buf[:max(n, 0)])) {
			if n, err := strconv.Atoi(pid); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}
