package compare

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/duplex-run/duplex/internal/workload"
)

// snapshotFlags are the flags of `duplex run` that `duplex snapshot create` has too:
// what the machine is.
var snapshotFlags = []string{"--memory", "--cpus", "--kernel", "--initrd", "--no-jail"}

// snapshot makes the snapshot that the warm side's runs are restored from, also when
// there is one, and says what that took.
func (s *session) snapshot(ctx context.Context) (*Snapshot, error) {
	args := []string{"snapshot", "create", "--json"}
	for _, f := range s.Flags {
		if name, _, _ := strings.Cut(f, "="); slices.Contains(snapshotFlags, name) {
			args = append(args, f)
		}
	}
	cmd := exec.CommandContext(ctx, s.Exe, append(args, s.Image.Ref)...)
	var out bytes.Buffer
	errs := &tail{}
	cmd.Stdout, cmd.Stderr = &out, errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = killAfter
	begin := workload.Now()
	err := cmd.Run()
	end := workload.Now()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, &workload.Error{
			Op: "make the snapshot of the warm side", Err: fmt.Errorf("%w: %s", err, oneLine(errs.String())),
			Remedy: "'duplex snapshot create' shows it alone; --isolation=vm,container compares without.",
		}
	}
	var made struct {
		Memory struct {
			Data int64 `json:"data"`
		} `json:"memory"`
	}
	if err := json.Unmarshal(out.Bytes(), &made); err != nil {
		return nil, fmt.Errorf("read what `duplex snapshot create` made: %w", err)
	}
	return &Snapshot{CreateNs: end - begin, Bytes: made.Memory.Data}, nil
}
