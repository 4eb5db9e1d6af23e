package oci

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/duplex-run/duplex/internal/agentproto"
)

// GuestCommand is the command of `duplex oci` that a machine's guest runs; it is
// of no use elsewhere.
const GuestCommand = "in-guest"

// guestState is where the guest's runtime keeps its container's state.
const guestState = "/run/duplex-oci"

// controlSock is where a machine's supervisor hears commands.
const controlSock = "vm.sock"

// InGuest is the runtime in a machine's guest: it creates the container that the
// supervisor has laid out, obeys it, and returns the program's exit status.
func InGuest(ctx context.Context, o CreateOptions) (int, error) {
	o.Bundle = guestDir
	fd, err := agentproto.DialHost(agentproto.WorkloadPort)
	if err != nil {
		return 0, fmt.Errorf("reach the host: %w", err)
	}
	t := newTalk(os.NewFile(uintptr(fd), "host"))
	c, err := Create(ctx, o)
	if err != nil {
		w := errorWord(err)
		return w.Status, t.say(w)
	}
	c.Close()
	if err := t.say(word{}); err != nil {
		return 0, err
	}
	go obeyHost(ctx, t, o.Root, o.ID)
	return waitFor(c.Pid, nil)
}

// obeyHost answers what the host asks, one thing after the other, until it is gone.
func obeyHost(ctx context.Context, t *talk, root, id string) {
	for {
		q, err := t.hear()
		if err != nil {
			return
		}
		a, err := obey(ctx, q, root, id)
		if err != nil {
			a = errorWord(err)
		}
		if t.say(a) != nil {
			return
		}
	}
}

func obey(ctx context.Context, q word, root, id string) (word, error) {
	c, err := Open(root, id, q.Op == opStart)
	if err != nil {
		return word{}, err
	}
	defer c.Close()
	switch q.Op {
	case opStart:
		return word{}, c.Start(ctx)
	case opKill:
		return word{}, c.Kill(q.Signal, q.All)
	case opPS:
		procs, err := c.processes()
		return word{Procs: procs}, err
	case opStats:
		s := c.Cgroups.Stats()
		return word{Stats: &s, OOM: c.Cgroups.OOMKills()}, nil
	}
	return word{}, fmt.Errorf("the host asks for %q", q.Op)
}

// maxProcs bounds the processes that ps tells of.
const maxProcs = 4096

// processes lists the container's.
func (c *Container) processes() ([]GuestProcess, error) {
	pids, err := c.Pids()
	if err != nil {
		return nil, err
	}
	out := []GuestProcess{}
	for _, pid := range pids[:min(len(pids), maxProcs)] {
		if p, ok := processOf(pid); ok { // else it has ended
			out = append(out, p)
		}
	}
	return out, nil
}

func processOf(pid int) (GuestProcess, bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	args, err := os.Open(filepath.Join(dir, "cmdline"))
	if err != nil {
		return GuestProcess{}, false
	}
	defer func() { _ = args.Close() }()
	line, err := io.ReadAll(io.LimitReader(args, 128))
	status, serr := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil || serr != nil {
		return GuestProcess{}, false
	}
	p := GuestProcess{PID: pid, Args: strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))}
	for l := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(l, ":")
		f := strings.Fields(value)
		switch {
		case len(f) == 0:
		case key == "PPid":
			p.PPID, _ = strconv.Atoi(f[0])
		case key == "Uid":
			p.UID, _ = strconv.Atoi(f[0])
		case key == "Name" && p.Args == "":
			p.Args = "[" + f[0] + "]"
		}
	}
	return p, true
}
