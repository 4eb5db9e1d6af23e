package lean

import (
	"debug/elf"
	"io"
	"os"
	"runtime/debug"
)

// percent is the garbage collector's target (runtime/debug.SetGCPercent) for a
// process that allocates little: the heap is collected from 2 MiB on, not 4.
const percent = 50

// Settle gives memory back, once the start is over. program is what Program
// returned for this process's program: nil leaves its pages alone.
func Settle(program []Pages) {
	debug.SetGCPercent(percent)
	debug.FreeOSMemory()
	for _, p := range program {
		p.drop()
	}
}

// Pages is a mapping: addresses from Start to End.
type Pages struct{ Start, End uint64 }

// Program is what a process of the program f maps of it and cannot have changed:
// not writable, and of a program that is loaded where it was linked to. Others
// have pages with relocations, which a file cannot restore; for them, and for what
// is no program, it is nil.
func Program(f io.ReaderAt) []Pages {
	e, err := elf.NewFile(f)
	if err != nil || e.Type != elf.ET_EXEC {
		return nil
	}
	page := uint64(os.Getpagesize())
	var found []Pages
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_W == 0 && p.Filesz > 0 && p.Vaddr+p.Filesz > p.Vaddr {
			found = append(found, Pages{p.Vaddr &^ (page - 1), (p.Vaddr + p.Filesz + page - 1) &^ (page - 1)})
		}
	}
	return found
}
