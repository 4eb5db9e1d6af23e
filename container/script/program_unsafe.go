package script

import (
	"bytes"
	"encoding/binary"
	"os"
	"unsafe"

	"github.com/duplex-run/duplex/container/sealed"
	"github.com/duplex-run/duplex/internal/tinyelf"
)

// interpreterAt is the address of the instructions.
var interpreterAt uintptr

//lint:ignore U1000 vet wants what script_amd64.s has; nothing calls it
func interpreter()

// The constants of script_amd64.s that stand for something.
const (
	descriptor = 0x5ca1ab1e
	end        = 0xdec0adde
)

// programBase is where Program is loaded.
const programBase = 0x10000

// code copies the instructions.
func code() []byte {
	// SAFETY: the instructions are in this program's text, which is mapped and does
	// not change; they are less than 512 bytes with their end mark, and the text is
	// longer than that behind them in every program that links this package: the
	// copy stops at the mark.
	text := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(nil), interpreterAt)), 512)
	n := bytes.Index(text, binary.LittleEndian.AppendUint32(nil, end))
	return bytes.Clone(text[:n])
}

// Program returns the executable of a process that has the script's file as
// descriptor fd, in sealed memory. The caller closes it.
func Program(fd int) (*os.File, error) {
	text := code()
	at := bytes.Index(text, binary.LittleEndian.AppendUint32(nil, descriptor))
	binary.LittleEndian.PutUint32(text[at:], uint32(fd))
	return sealed.Program("duplex-script", tinyelf.Program(programBase, text))
}
