package hook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
)

// maxOutput is how much of what a hook writes to standard error becomes part of
// its error, in bytes.
const maxOutput = 2048

// All runs hooks in order, each with state on its standard input, and stops at
// the first that fails. The error names the kind and the number of the hook.
func All(ctx context.Context, kind string, hooks []handshake.Hook, state []byte) error {
	for i, h := range hooks {
		if err := Run(ctx, h, state); err != nil {
			return &handshake.StepError{Step: fmt.Sprintf("%s hook %d (%s)", kind, i, h.Path), Err: err}
		}
	}
	return nil
}

// Run runs one hook to its end. A hook that takes longer than its timeout, or
// than ctx, is killed with its process group. The hook is a child of the calling
// thread, whose namespaces it has.
func Run(ctx context.Context, h handshake.Hook, state []byte) error {
	if h.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, time.Duration(h.Timeout)*time.Second,
			fmt.Errorf("it took longer than its timeout of %d s", h.Timeout))
		defer cancel()
	}
	// Files in memory, and not pipes: what a hook leaves behind in the background
	// cannot make its runtime wait.
	in, err := memory("hook-stdin", state)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := memory("hook-stderr", nil)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	p, err := os.StartProcess(h.Path, args, &os.ProcAttr{
		Env: append([]string{}, h.Env...), Files: []*os.File{in, out, out},
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = unix.Kill(-p.Pid, unix.SIGKILL) })
	defer stop()
	status, err := p.Wait()
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !status.Success():
		return fmt.Errorf("%v%s", status, said(out))
	}
	return nil
}

// memory makes a file in memory that holds data, read from its start.
func memory(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(data)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// said returns the start of what a hook wrote, as ": text".
func said(out *os.File) string {
	buf := make([]byte, maxOutput)
	n, _ := out.ReadAt(buf, 0) // io.EOF is what a short text gives
	text := strings.TrimSpace(strings.ToValidUTF8(string(buf[:n]), "?"))
	if text == "" {
		return ""
	}
	return ": " + strings.ReplaceAll(text, "\n", "; ")
}
