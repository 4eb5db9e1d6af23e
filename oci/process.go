package oci

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/seccomp"
)

// capabilities are the names of capabilities(7), by number.
var capabilities = seccomp.Capabilities

// capSet leaves out names that are not known: the specification asks for
// a warning then, not for an error (config.md, "capabilities"); see warnings.
func capSet(names []string) uint64 {
	var set uint64
	for _, name := range names {
		if i := slices.Index(capabilities, name); i >= 0 {
			set |= 1 << i
		}
	}
	return set
}

// rlimits are the resources of setrlimit(2).
var rlimits = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU,
	"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE,
	"RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC,
	"RLIMIT_RSS": unix.RLIMIT_RSS, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}

var policies = map[specs.LinuxSchedulerPolicy]uint32{
	specs.SchedOther: unix.SCHED_NORMAL, specs.SchedFIFO: unix.SCHED_FIFO, specs.SchedRR: unix.SCHED_RR,
	specs.SchedBatch: unix.SCHED_BATCH, specs.SchedIdle: unix.SCHED_IDLE, specs.SchedDeadline: unix.SCHED_DEADLINE,
}

// schedFlags are those of struct sched_attr (linux/sched.h).
var schedFlags = map[specs.LinuxSchedulerFlag]uint64{
	specs.SchedFlagResetOnFork: 1 << 0, specs.SchedFlagReclaim: 1 << 1, specs.SchedFlagDLOverrun: 1 << 2,
	specs.SchedFlagKeepPolicy: 1 << 3, specs.SchedFlagKeepParams: 1 << 4,
	specs.SchedFlagUtilClampMin: 1 << 5, specs.SchedFlagUtilClampMax: 1 << 6,
}

// The classes of ioprio_set(2), and where they are in its value.
var ioClasses = map[specs.IOPriorityClass]int{
	specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3,
}

const ioClassShift = 13

// processPlan turns a process into what init executes. The seccomp filter is
// the bundle's, and the caller's to add.
func processPlan(p *specs.Process, preserve int) (*handshake.Process, error) {
	out := &handshake.Process{
		Argv: p.Args, Env: lastOfEach(p.Env), Cwd: p.Cwd,
		UID: p.User.UID, GID: p.User.GID, Groups: p.User.AdditionalGids, Umask: 0o022,
		Terminal: p.Terminal, NoNewPrivs: p.NoNewPrivileges, AppArmor: p.ApparmorProfile, Preserve: preserve,
	}
	for _, id := range append([]uint32{p.User.UID, p.User.GID}, p.User.AdditionalGids...) {
		if id == math.MaxUint32 { // to setresuid(2) "the one it has", which is root
			return nil, fmt.Errorf("process.user: %d is not an id", id)
		}
	}
	if p.User.Umask != nil {
		if *p.User.Umask > 0o777 {
			return nil, fmt.Errorf("process.user.umask: %#o is out of range", *p.User.Umask)
		}
		out.Umask = *p.User.Umask
	}
	if p.ConsoleSize != nil {
		out.Rows, out.Cols = uint16(p.ConsoleSize.Height), uint16(p.ConsoleSize.Width)
	}
	if p.OOMScoreAdj != nil && (*p.OOMScoreAdj < -1000 || *p.OOMScoreAdj > 1000) {
		return nil, fmt.Errorf("process.oomScoreAdj: %d is not between -1000 and 1000", *p.OOMScoreAdj)
	}
	addCaps(out, p)
	for _, add := range []func(*handshake.Process, *specs.Process) error{addRlimits, addScheduling} {
		if err := add(out, p); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// lastOfEach drops of a variable given twice the first value, as runc does.
func lastOfEach(env []string) []string {
	out := make([]string, 0, len(env)+1)
	at := make(map[string]int, len(env))
	for _, e := range env {
		key, _, _ := strings.Cut(e, "=")
		if i, ok := at[key]; ok {
			out[i] = e
			continue
		}
		at[key] = len(out)
		out = append(out, e)
	}
	return out
}

func addCaps(out *handshake.Process, p *specs.Process) {
	c := p.Capabilities
	if c == nil {
		return
	}
	for _, set := range []struct {
		names []string
		to    *uint64
	}{
		{c.Bounding, &out.Bounding}, {c.Effective, &out.Effective}, {c.Permitted, &out.Permitted},
		{c.Inheritable, &out.Inheritable}, {c.Ambient, &out.Ambient},
	} {
		*set.to = capSet(set.names)
	}
}

func addRlimits(out *handshake.Process, p *specs.Process) error {
	for _, l := range p.Rlimits {
		resource, ok := rlimits[l.Type]
		if !ok {
			return fmt.Errorf("process.rlimits: %q is not known", l.Type)
		}
		if slices.ContainsFunc(out.Rlimits, func(r handshake.Rlimit) bool { return r.Resource == resource }) {
			return fmt.Errorf("process.rlimits: %s is there twice", l.Type)
		}
		if l.Soft > l.Hard {
			return fmt.Errorf("process.rlimits: %s: the soft limit %d is above the hard one, %d", l.Type, l.Soft, l.Hard)
		}
		out.Rlimits = append(out.Rlimits, handshake.Rlimit{Resource: resource, Soft: l.Soft, Hard: l.Hard})
	}
	return nil
}

func addScheduling(out *handshake.Process, p *specs.Process) error {
	if s := p.Scheduler; s != nil {
		policy, ok := policies[s.Policy]
		if !ok {
			return unsupported("process.scheduler.policy", fmt.Sprintf("%q is not one of sched_setattr(2)", s.Policy))
		}
		out.Scheduler = &handshake.Scheduler{Policy: policy, Nice: s.Nice, Priority: uint32(s.Priority),
			Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period}
		for _, f := range s.Flags {
			bit, ok := schedFlags[f]
			if !ok {
				return fmt.Errorf("process.scheduler.flags: %q is not known", f)
			}
			out.Scheduler.Flags |= bit
		}
		if s.Nice < -20 || s.Nice > 19 || s.Priority < 0 || s.Priority > 99 {
			return fmt.Errorf("process.scheduler: nice %d or priority %d is out of range", s.Nice, s.Priority)
		}
	}
	if i := p.IOPriority; i != nil {
		class, ok := ioClasses[i.Class]
		if !ok || i.Priority < 0 || i.Priority > 7 {
			return fmt.Errorf("process.ioPriority: class %q, priority %d: out of range", i.Class, i.Priority)
		}
		out.IOPriority = class<<ioClassShift | i.Priority
	}
	if a := p.ExecCPUAffinity; a != nil {
		for _, list := range []string{a.Initial, a.Final} {
			if _, err := cpuList(list); err != nil {
				return fmt.Errorf("process.execCPUAffinity: %w", err)
			}
		}
	}
	return nil
}

// cpuList parses "0-3,7" (cpuset(7), "List format").
func cpuList(s string) ([]int, error) {
	var out []int
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 16)
		b, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || a > b || b > 1023 {
			return nil, fmt.Errorf("%q is not a list of CPUs", s)
		}
		for n := a; n <= b; n++ {
			out = append(out, int(n))
		}
	}
	return out, nil
}

// personality returns the argument of personality(2).
func personality(p *specs.LinuxPersonality) (uint32, error) {
	if p == nil {
		return 0, nil
	}
	if len(p.Flags) > 0 {
		return 0, unsupported("linux.personality.flags", "the specification defines none")
	}
	switch p.Domain {
	case specs.PerLinux:
		return 0, nil
	case specs.PerLinux32:
		return 8, nil // PER_LINUX32, linux/personality.h
	}
	return 0, fmt.Errorf("linux.personality.domain: %q is not known", p.Domain)
}
