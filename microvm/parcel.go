package microvm

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm/virtio/net"
)

// parcel is the open files that a monitor is started with: it opens none of the
// user's itself, so it needs no right to.
type parcel struct {
	names []string
	files []*os.File
}

// Names of the files in a parcel; those of disks and interfaces have a number.
const (
	fileKernel     = "kernel"
	fileInitrd     = "initrd"
	fileTrace      = "trace"
	fileSerial     = "serial"
	fileSerialIn   = "serial-in"
	fileConsole    = "console"
	fileConsoleIn  = "console-in"
	fileDisk       = "disk"
	fileTap        = "tap"
	fileAgent      = "agent"
	fileShare      = "share"
	fileVsock      = "vsock"
	fileDial       = "dial"
	fileMemory     = "memory"       // to restore from
	fileMachine    = "machine"      //
	fileSaveMemory = "save-memory"  // to save to
	fileSave       = "save-machine" //
	controlSocket  = 3
	reportPipe     = 4
	programFile    = 5 // the monitor's own
	firstFile      = 6
)

func (p *parcel) add(name string, f *os.File) {
	p.names, p.files = append(p.names, name), append(p.files, f)
}

// close lets go of the files: those that the monitor got are its own.
func (p *parcel) close() error {
	var errs error
	for _, f := range p.files {
		errs = errors.Join(errs, f.Close())
	}
	p.files = nil
	return errs
}

// pipe makes a pipe, packs one end and returns the other.
func (p *parcel) pipe(name string, packWriter bool) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if packWriter {
		p.add(name, w)
		return r, nil
	}
	p.add(name, r)
	return w, nil
}

// pack opens the hardware's files, with the caller's rights.
func (p *parcel) pack(h *Hardware) error {
	open := func(name, path string, flags int) error {
		f, err := os.OpenFile(path, flags, 0)
		if err == nil {
			p.add(name, f)
		}
		return err
	}
	for i, d := range h.Disks {
		flags := os.O_RDWR
		if d.ReadOnly {
			flags = os.O_RDONLY
		}
		if err := open(numbered(fileDisk, i), d.Path, flags); err != nil {
			return &workload.Error{Op: "make the microVM", Err: fmt.Errorf("open disk: %w", err)}
		}
	}
	for i, n := range h.Networks {
		if n.Tap == "" {
			continue
		}
		if n.File != nil {
			p.add(numbered(fileTap, i), n.File)
			continue
		}
		tap, err := net.OpenTAP(n.Tap)
		if err != nil {
			return &workload.Error{Op: "make the microVM", Err: fmt.Errorf("network: %w", err)}
		}
		p.add(numbered(fileTap, i), tap.File())
	}
	for i, s := range h.Shares {
		if err := open(numbered(fileShare, i), s.Dir, unix.O_PATH); err != nil {
			return &workload.Error{Op: "make the microVM", Err: fmt.Errorf("share: %w", err)}
		}
	}
	if h.Kernel == "" { // restored
		return nil
	}
	if err := open(fileKernel, h.Kernel, os.O_RDONLY); err != nil {
		return fmt.Errorf("open the kernel: %w", err)
	}
	if h.Initrd == "" {
		return nil
	}
	if err := open(fileInitrd, h.Initrd, os.O_RDONLY); err != nil {
		return fmt.Errorf("open the initrd: %w", err)
	}
	return nil
}

func numbered(name string, i int) string { return name + "-" + strconv.Itoa(i) }

// unpacked is a parcel at its destination: files by name.
type unpacked map[string]*os.File

// unpack takes over the descriptors from firstFile on. Sockets and pipes become
// such that Go's poller waits for them, and a goroutine can be woken from them.
func unpack(names []string) (unpacked, error) {
	out := unpacked{}
	for i, name := range names {
		fd := firstFile + i
		unix.CloseOnExec(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if kind := st.Mode & unix.S_IFMT; kind == unix.S_IFIFO || kind == unix.S_IFSOCK {
			if err := unix.SetNonblock(fd, true); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		out[name] = os.NewFile(uintptr(fd), name)
	}
	return out, nil
}

// take hands out a file, once; nil when there is none.
func (u unpacked) take(name string) *os.File {
	f := u[name]
	delete(u, name)
	return f
}

// agentPorts are the streams that the agent opens, and the way to more.
var agentPorts = []agentproto.Port{agentproto.Control, agentproto.Stdin, agentproto.Stdout, agentproto.Stderr, further}

// workloadPort is the stream of Runner.Talk, among the agent's.
const workloadPort = agentproto.Port(agentproto.WorkloadPort - agentproto.FirstPort)

func agentFile(p agentproto.Port) string { return numbered(fileAgent, int(p)) }
