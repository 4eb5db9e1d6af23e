package lean

import (
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// percent is the garbage collector's target (runtime/debug.SetGCPercent) for a
// process that allocates little: the heap is collected from 2 MiB on, not 4.
const percent = 50

// Settle gives memory back, once the start is over. program is what Program
// returned, to this process or to another one of the same program: nil leaves the
// program's pages alone.
func Settle(program []Pages) {
	debug.SetGCPercent(percent)
	debug.FreeOSMemory()
	for _, p := range program {
		p.drop()
	}
}

// Pages is a mapping: addresses from Start to End.
type Pages struct{ Start, End uint64 }

// Program is the mappings of this process's program that nobody can have changed:
// not writable, and in a program that is loaded where it was linked to, so they
// are the same in each of its processes. Others have pages with relocations, which
// a file cannot restore; for them, and where /proc does not tell, it is nil.
func Program() []Pages {
	const self = "/proc/self/exe"
	name, err := os.Readlink(self)
	if err != nil || !fixedAddress(self) {
		return nil
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil
	}
	return readOnly(string(maps), name)
}

// fixedAddress says whether an ELF file is an executable without relocations.
func fixedAddress(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	var ident [elf.EI_NIDENT + 2]byte // and e_type
	_, err = io.ReadFull(f, ident[:])
	return err == nil && elf.Type(binary.NativeEndian.Uint16(ident[elf.EI_NIDENT:])) == elf.ET_EXEC
}

// readOnly finds the mappings of a file in /proc/PID/maps (proc_pid_maps(5)) that
// are not writable.
func readOnly(maps, name string) []Pages {
	var found []Pages
	for line := range strings.Lines(maps) {
		// "start-end perms offset dev inode path"; a path may hold spaces.
		fields := strings.Fields(line)
		if len(fields) < 6 || !strings.HasSuffix(line, " "+name+"\n") || len(fields[1]) != 4 || fields[1][1] != '-' {
			continue
		}
		low, high, _ := strings.Cut(fields[0], "-")
		start, err1 := strconv.ParseUint(low, 16, 64)
		end, err2 := strconv.ParseUint(high, 16, 64)
		if err1 == nil && err2 == nil && start < end {
			found = append(found, Pages{start, end})
		}
	}
	return found
}
