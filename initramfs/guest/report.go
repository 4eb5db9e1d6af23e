package main

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
)

// kernelLog is the kernel's log, or -1 when nobody asked where the boot goes.
var kernelLog = -1

// openReport opens the kernel's log when the host asked for a report
// (agentproto.ReportKey). That early there may be no /dev yet.
func openReport() {
	if os.Getenv(agentproto.ReportKey) == "" {
		return
	}
	const kmsg, own = "/dev/kmsg", "/.kmsg"
	flags := unix.O_RDWR | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Open(kmsg, flags, 0)
	if err != nil && unix.Mknod(own, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 11))) == nil {
		fd, err = unix.Open(own, flags, 0)
		_ = unix.Unlink(own) // the initramfs is thrown away all the same
	}
	if err != nil {
		return // a kernel without CONFIG_PRINTK: the host gets no log, and says so
	}
	kernelLog = fd
	step("open the kernel's log")
}

// step says that a step of the agent begins: a line in the kernel's log, and
// right after it a mark, so that the clocks of guest and host both see it.
func step(name string) {
	if kernelLog < 0 {
		return
	}
	_, _ = unix.Write(kernelLog, []byte("<7>"+agentproto.StepPrefix+name)) // or the step is not told apart
	mark(agentproto.MarkStep)
}

// logPart bounds the text of one message; escaped, it is at most six times that.
const logPart = 64 << 10

// sendLog sends the kernel's log, as /dev/kmsg has it, if it was asked for.
func sendLog(h *host) error {
	if kernelLog < 0 {
		return nil
	}
	step("send the log")
	var text []byte
	flush := func() error {
		if len(text) == 0 {
			return nil
		}
		m := &agentproto.Message{Type: agentproto.Log, Text: string(text)}
		text = text[:0]
		return h.send(m)
	}
	record := make([]byte, 8<<10) // the kernel's CONSOLE_EXT_LOG_MAX
	for {
		n, err := unix.Read(kernelLog, record)
		switch {
		case errors.Is(err, unix.EPIPE): // older records were overwritten; the numbers tell
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || n <= 0:
			return flush()
		}
		text = append(text, record[:n]...)
		if len(text) > logPart {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}
