package script

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

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
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	m, err := unix.MemfdCreate("duplex-script", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		m, err = unix.MemfdCreate("duplex-script", flags)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(m), "duplex-script")
	if _, err = f.Write(tinyelf.Program(programBase, text)); err == nil {
		const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write the program: %w", err), f.Close())
	}
	return f, nil
}
