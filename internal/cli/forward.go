package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/duplex-run/duplex/internal/runs"
	"github.com/duplex-run/duplex/internal/workload"
)

// forward asks the duplex in the lab machine, by its own commands.
type forward struct{ exe, id string }

// Exec implements runs.Forward.
func (f *forward) Exec(ctx context.Context, c workload.Controller, cmd *runs.Command, stdio workload.Stdio) (workload.Exit, error) {
	argv := []string{f.exe, "exec", "--await"}
	for flag, on := range map[string]bool{"-i": cmd.Interactive, "-t": cmd.TTY, "-d": cmd.Detach} {
		if on {
			argv = append(argv, flag)
		}
	}
	if cmd.Cwd != "" {
		argv = append(argv, "--workdir="+cmd.Cwd)
	}
	if cmd.User != "" {
		argv = append(argv, "--user="+cmd.User)
	}
	for _, e := range cmd.Env {
		argv = append(argv, "--env="+e)
	}
	argv = append(append(argv, f.id), cmd.Argv...)
	return c.Exec(ctx, workload.Spec{ID: f.id, Argv: argv, Cwd: "/", TTY: cmd.TTY, Size: cmd.Size, Interactive: cmd.Interactive}, stdio)
}

// Stats implements runs.Forward.
func (f *forward) Stats(ctx context.Context, c workload.Controller) (workload.Stats, error) {
	var out, errs bytes.Buffer
	spec := workload.Spec{ID: f.id, Argv: []string{f.exe, "stats", "--sample", f.id}, Cwd: "/"}
	exit, err := c.Exec(ctx, spec, workload.Stdio{Out: &out, Err: &errs})
	if err == nil && exit.Status() != 0 {
		err = fmt.Errorf("in the lab machine: %s", strings.TrimSpace(errs.String()))
	}
	stats := workload.NoStats()
	if err != nil {
		return stats, err
	}
	return stats, json.Unmarshal(out.Bytes(), &stats)
}
