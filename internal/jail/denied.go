package jail

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/seccomp"
)

// Status is the exit status of a monitor that made a denied system call.
const Status = 128 + int(unix.SIGSYS)

// Denied is a system call that the filter refused.
type Denied struct {
	Role   Role
	Number uint32
	Args   [6]uint64
}

// Syscall is the call's name.
func (d *Denied) Syscall() string {
	if name := seccomp.Name(d.Number); name != "" {
		return name
	}
	return fmt.Sprintf("system call %d", d.Number)
}

// Error implements error: "openat(0xffffffffffffff9c, 0xc000012340, 0x0) in role vcpu".
func (d *Denied) Error() string {
	name := d.Syscall()
	var args []string
	for i, a := range d.Args[:argCount(name)] {
		text := fmt.Sprintf("%#x", a)
		if name == "ioctl" && i == 1 {
			text = requestName(uint32(a))
		}
		args = append(args, text)
	}
	return fmt.Sprintf("the jail denied %s(%s) to a thread in role %s", name, strings.Join(args, ", "), d.Role)
}

// argCount is how many arguments are worth showing.
func argCount(name string) int {
	switch name {
	case "ioctl", "socket", "execve", "mprotect", "kill", "tgkill", "rt_sigaction", "fcntl", "clone":
		return 3
	case "getppid", "fork", "vfork", "sync":
		return 0
	}
	return 4
}

func requestName(n uint32) string {
	all := slices.Concat(vcpuRequests, monitorRequests, savingRequests, known)
	if i := slices.IndexFunc(all, func(r request) bool { return r.number == n }); i >= 0 {
		return all[i].name
	}
	return fmt.Sprintf("%#x", n)
}

// Layout of a report: 32 bytes of siginfo_t, then the registers of ucontext_t
// (asm/sigcontext.h), both little-endian.
const (
	reportSize  = 32 + 136
	offRole     = 4 // si_errno: SECCOMP_RET_DATA
	offCode     = 8
	offSyscall  = 24
	sysSeccomp  = 1 // SYS_SECCOMP
	registers   = 32
	regR8       = registers + 0*8
	regR9       = registers + 1*8
	regR10      = registers + 2*8
	regRDI      = registers + 8*8
	regRSI      = registers + 9*8
	regRDX      = registers + 12*8
	maxRoleData = 1<<16 - 1
)

// ReadDenial reads what a monitor left in its report pipe when it ended: nil when
// there was no denied call.
func ReadDenial(r io.Reader) (*Denied, error) {
	var b [reportSize]byte
	_, err := io.ReadFull(r, b[:])
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the jail's report: %w", err)
	}
	word := binary.LittleEndian.Uint32
	role := word(b[offRole:])
	if word(b[:]) != uint32(unix.SIGSYS) || word(b[offCode:]) != sysSeccomp || role > maxRoleData {
		return nil, errors.New("the jail's report is no report")
	}
	d := &Denied{Role: Role(role), Number: word(b[offSyscall:])}
	for i, off := range []int{regRDI, regRSI, regRDX, regR10, regR8, regR9} {
		d.Args[i] = binary.LittleEndian.Uint64(b[off:])
	}
	return d, nil
}
