package runcli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/container"
	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/runs"
	"github.com/duplex-run/duplex/internal/workload"
)

// detachedLog is where the process of a detached run has its own stderr.
const detachedLog = "stderr"

// detach starts the run in a process of its own, in the background, and returns
// once the workload runs.
func (f *Flags) detachRun(ctx context.Context, a *App, fs *pflag.FlagSet, args []string, iso workload.Isolation) error {
	// Here, where it shows, and its errors are the user's.
	img, err := f.img, error(nil)
	if img == nil {
		img, err = a.Image(ctx, fs.Arg(0), iso == workload.Container && container.NeedsTree())
	}
	if err != nil {
		return err
	}
	if err := img.Close(); err != nil {
		return err
	}
	if iso == workload.VM {
		if err := a.Whole.Guest(ctx, &f.Options); err != nil {
			return err
		}
	}
	own, err := runs.Create(runs.Record{
		ID: NewID(), Name: f.Name, Isolation: iso, Image: fs.Arg(0), TTY: f.TTY, Interactive: f.Interactive,
		Detached: true, Remove: f.remove, Created: time.Now(),
	})
	if err != nil {
		return err
	}
	id := own.Record().ID
	o, err := f.background(ctx, own, args)
	switch {
	case err != nil:
		return errors.Join(err, own.Discard())
	case o.Error != "":
		return &workload.Error{Op: "run", Err: errors.New(o.Error), Remedy: o.Remedy, Status: o.Status}
	case o.Message != "":
		return &workload.Error{Op: "run", Err: errors.New(o.Message), Status: o.Status}
	}
	_, err = fmt.Fprintln(a.Out, id)
	return err
}

// background starts the process and waits for its report.
func (f *Flags) background(ctx context.Context, own *runs.Own, args []string) (outcome, error) {
	fail := func(err error) (outcome, error) {
		return outcome{}, &workload.Error{Op: "detach the run", Err: err}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	defer func() { _ = r.Close() }()
	stderr, err := os.OpenFile(own.Path(detachedLog), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fail(errors.Join(err, w.Close()))
	}
	defer func() { _ = stderr.Close() }()
	const firstExtra = 3
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{os.Args[0], "run", "--detached-fd=" + strconv.Itoa(firstExtra), "--run-id=" + own.Record().ID}, args...)
	cmd.Env = cmdline.Environ()
	cmd.Stderr, cmd.ExtraFiles = stderr, []*os.File{own.Lock(), w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return fail(err)
	}
	o, err := await(ctx, r)
	if err == nil && o == (outcome{}) {
		return o, cmd.Process.Release() // it is nobody's child soon
	}
	if ctx.Err() != nil {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it unwinds
	}
	_ = cmd.Wait()
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("its process ended early: %s", lastLine(stderr))
	}
	if err != nil && ctx.Err() == nil {
		return fail(err)
	}
	return o, err
}

// lastLine is the last line of a short file.
func lastLine(f *os.File) string {
	buf := make([]byte, 64<<10)
	n, _ := f.ReadAt(buf, 0)
	lines := strings.Split(strings.TrimSpace(string(buf[:n])), "\n")
	return lines[len(lines)-1]
}
