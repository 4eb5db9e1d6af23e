package ocicli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/console"
	"github.com/duplex-run/duplex/oci"
)

func ociList(_ context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error {
	quiet := fs.BoolP("quiet", "q", false, "ids only")
	format := fs.StringP("format", "f", "table", "`FORMAT`: table or json")
	if err := o.parse(fs, args, -1); err != nil {
		return err
	}
	list, err := oci.List(o.root)
	if err != nil {
		return o.fail(err)
	}
	states := make([]oci.State, 0, len(list))
	for _, c := range list {
		states = append(states, c.State())
	}
	switch {
	case *quiet:
		for _, s := range states {
			_, _ = fmt.Fprintln(o.out, s.ID)
		}
		return nil
	case *format == "json":
		return cmdline.PrintJSON(o.out, states)
	case *format != "table":
		return o.usage("--format=%s: want table or json", *format)
	}
	w := tabwriter.NewWriter(o.out, 8, 1, 3, ' ', 0)
	_, _ = fmt.Fprintln(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER")
	for _, s := range states {
		_, _ = fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
	}
	return w.Flush()
}

// ociPS prints what ps(1) says of the container's processes, as runc does.
func ociPS(ctx context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error {
	fs.SetInterspersed(false)
	format := fs.StringP("format", "f", "table", "`FORMAT`: table or json")
	if err := o.parse(fs, args, 1<<30); err != nil {
		return err
	}
	c, err := o.open(fs, false)
	if err != nil {
		return err
	}
	if c.InVM() {
		return o.guestPS(c, *format, fs.Args()[1:])
	}
	pids, err := c.Pids()
	if err != nil {
		return o.fail(err)
	}
	switch *format {
	case "json":
		return cmdline.PrintJSON(o.out, pids)
	case "table":
	default:
		return o.usage("--format=%s: want table or json", *format)
	}
	psArgs := fs.Args()[1:]
	if len(psArgs) == 0 {
		psArgs = []string{"-ef"}
	}
	out, err := exec.CommandContext(ctx, "ps", psArgs...).Output()
	if err != nil {
		return o.fail(fmt.Errorf("ps: %w", err))
	}
	return o.fail(filterPS(o.out, string(out), pids))
}

// guestPS prints what a guest says of its processes: ps(1) knows those of the host.
func (o *ociApp) guestPS(c *oci.Container, format string, psArgs []string) error {
	if len(psArgs) > 0 {
		return o.usage("arguments for ps(1) are not supported in a microVM: it has processes of its own")
	}
	if format != "table" && format != "json" {
		return o.usage("--format=%s: want table or json", format)
	}
	procs, err := c.GuestProcesses()
	if err != nil {
		return o.fail(err)
	}
	if format == "json" {
		pids := make([]int, 0, len(procs))
		for _, p := range procs {
			pids = append(pids, p.PID)
		}
		return cmdline.PrintJSON(o.out, pids)
	}
	w := tabwriter.NewWriter(o.out, 0, 1, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "UID\tPID\tPPID\tCMD")
	for _, p := range procs {
		_, _ = fmt.Fprintf(w, "%d\t%d\t%d\t%s\n", p.UID, p.PID, p.PPID, console.Printable(p.Args))
	}
	return w.Flush()
}

// filterPS prints ps's heading and the lines of pids.
func filterPS(w io.Writer, text string, pids []int) error {
	heading, lines, _ := strings.Cut(text, "\n")
	column := slices.Index(strings.Fields(heading), "PID")
	if column < 0 {
		return errors.New("ps: its output has no column PID")
	}
	if _, err := fmt.Fprintln(w, heading); err != nil {
		return err
	}
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		if len(f) <= column {
			continue
		}
		if pid, err := strconv.Atoi(f[column]); err == nil && slices.Contains(pids, pid) {
			if _, err := io.WriteString(w, line); err != nil {
				return err
			}
		}
	}
	return nil
}
