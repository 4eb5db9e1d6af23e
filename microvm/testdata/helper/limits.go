package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// limits prints those of this process and of "/helper sleep", and the size of
// /dev/shm.
func limits() {
	for _, name := range []string{"limits", "sleep"} {
		var files, core unix.Rlimit
		pid := find(name)
		check(0, unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &files)) // whose soft one Go's runtime raises
		check(0, unix.Prlimit(pid, unix.RLIMIT_CORE, nil, &core))
		fmt.Println(name, files.Max, core.Cur, core.Max)
	}
	var shm unix.Statfs_t
	check(0, unix.Statfs("/dev/shm", &shm))
	fmt.Println("shm", int64(shm.Blocks)*shm.Bsize)
}

// find is the process that runs this program so.
func find(arg string) int {
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	check(0, err)
	for _, path := range list {
		if line, err := os.ReadFile(path); err == nil && bytes.HasPrefix(line, []byte("/helper\x00"+arg)) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			check(0, err)
			return pid
		}
	}
	check(0, fmt.Errorf("nothing runs /helper %s", arg))
	return 0
}
