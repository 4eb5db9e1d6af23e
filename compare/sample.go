package compare

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/duplex-run/duplex/internal/workload"
)

// reportFD is where the child finds the pipe: the first of exec.Cmd.ExtraFiles.
const reportFD = 3

// Bounds on what is kept of a child's output.
const (
	maxReport = 1 << 20
	maxStderr = 4 << 10
)

// Grace given to a child that was told to end: the first SIGTERM goes to the
// workload, the second ends the run, SIGKILL ends everything.
const (
	secondTerm = 500 * time.Millisecond
	killAfter  = 5 * time.Second
)

// sampler starts `duplex run` as the user would, with the report on top.
type sampler struct {
	exe     string
	flags   []string
	image   string
	command []string
	stdin   string // path opened anew for every sample; empty means none
	// ignoreFailure accepts a workload that ends with a status but 0.
	ignoreFailure bool
}

// result is one sample and the raw bytes a study needs.
type result struct {
	Sample
	stdout []byte // the first bytes, as many as were asked for
}

// run makes one sample. What goes wrong in the child is in the result; err is
// for what this process could not do, and for a cancelled ctx.
func (s *sampler) run(ctx context.Context, side Column, keep int, extra ...string) (*result, error) {
	out := &sink{hash: sha256.New(), keep: keep}
	args := slices.Concat(side.flags(s.flags...), extra, []string{s.image}, s.command)
	p, err := Once(ctx, s.exe, args, s.stdin, out)
	if err != nil {
		return nil, err
	}
	res := &result{stdout: out.kept}
	res.Isolation = side
	res.fill(p.Begin, out.first, p.End, p.Report)
	res.Exit.Status, res.CPUNs = p.Status(), p.CPUNs()
	res.Exit.StdoutBytes, res.Exit.StdoutSHA256 = out.n, hex.EncodeToString(out.hash.Sum(nil))
	res.Exit.Failed = s.failure(res, p)
	return res, nil
}

// Process is one `duplex run` that has ended.
type Process struct {
	// Begin and End are workload.Now before it was started and after it was waited
	// for.
	Begin, End int64
	// Report is what it said of itself, if NoReport is nil.
	Report   workload.Report
	NoReport error
	State    *os.ProcessState
	// Stderr is the end of what it wrote there.
	Stderr string
	waited error
}

// Once runs `exe run ARGS...` with a report, as a fresh process; stdin is a path,
// empty for none. An error is this process's own failure, or ctx's.
func Once(ctx context.Context, exe string, args []string, stdin string, out io.Writer) (*Process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make the report pipe: %w", err)
	}
	defer func() { _ = r.Close() }()
	errs := &tail{}
	cmd := child(ctx, exe, args)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = out, errs, []*os.File{w}
	if stdin != "" {
		in, err := os.Open(stdin)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open the input: %w", err), w.Close())
		}
		defer func() { _ = in.Close() }()
		cmd.Stdin = in
	}
	p := &Process{Begin: workload.Now()}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", exe, err), w.Close())
	}
	_ = w.Close()
	report := readReport(r)
	p.waited = cmd.Wait()
	p.End = workload.Now()
	got := <-report
	p.Report, p.NoReport, p.State, p.Stderr = got.Report, got.err, cmd.ProcessState, errs.String()
	return p, ctx.Err()
}

// Failure says in one line why duplex itself failed, or nothing.
func (p *Process) Failure() string {
	var exit *exec.ExitError
	switch {
	case p.Report.Error != "":
		return oneLine(p.Report.Error)
	case p.waited != nil && !errors.As(p.waited, &exit):
		return oneLine(p.waited.Error())
	case p.NoReport != nil:
		return oneLine(fmt.Sprintf("status %d and no report: %s", p.Status(), p.Stderr))
	}
	return ""
}

func child(ctx context.Context, exe string, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, exe, append([]string{"run", fmt.Sprintf("--report-fd=%d", reportFD)}, args...)...)
	// A process group of its own: Ctrl-C on the terminal reaches only us, and
	// we end the child in the order Cancel says. Should we be killed, so is it;
	// the next run sweeps what it left.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = killAfter
	cmd.Cancel = func() error {
		time.AfterFunc(secondTerm, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
		return cmd.Process.Signal(syscall.SIGTERM)
	}
	return cmd
}

// fill turns absolute stamps into times since begin. Start, first byte and end
// are stamped by this process for both sides alike: the container hands its
// workload the pipe itself, so no one else sees the first byte.
func (r *result) fill(begin, first, end int64, report workload.Report) {
	r.PhasesNs = map[string]int64{}
	for p := workload.PhaseImage; p < workload.NumPhases; p++ {
		if at, ok := report.Stamps[p.String()]; ok && at >= begin && at <= end {
			r.PhasesNs[p.String()] = at - begin
		}
	}
	delete(r.PhasesNs, workload.PhaseFirstByte.String())
	if first != 0 {
		r.PhasesNs[workload.PhaseFirstByte.String()] = first - begin
	}
	r.PhasesNs[workload.PhaseTornDown.String()] = end - begin
	r.Exit.Exit = report.Exit
	r.Memory, r.Exits = report.Usage.Memory, report.Usage.Exits
}

// Status is the exit status as a shell has it.
func (p *Process) Status() int {
	if ws, ok := p.State.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return p.State.ExitCode()
}

// CPUNs is the CPU time of the process and of every descendant that was waited
// for, from wait4(2), in nanoseconds.
func (p *Process) CPUNs() int64 { return int64(p.State.UserTime() + p.State.SystemTime()) }

// failure says in one line why a sample does not count, or nothing.
func (s *sampler) failure(r *result, p *Process) string {
	if why := p.Failure(); why != "" {
		return why
	}
	switch {
	case r.Exit.Signal != 0 || r.Exit.TimedOut || r.Exit.OOM:
		return r.Exit.String()
	case r.Exit.Status != r.Exit.Exit.Status():
		return fmt.Sprintf("the report says status %d, the process ended with %d", r.Exit.Exit.Status(), r.Exit.Status)
	case r.Exit.Code != 0 && !s.ignoreFailure:
		return oneLine(strings.TrimSpace(r.Exit.String() + " " + r.Exit.Message))
	}
	return ""
}

// reported is a Report or why there is none.
type reported struct {
	workload.Report
	err error
}

func readReport(r io.Reader) <-chan reported {
	ch := make(chan reported, 1)
	go func() {
		var got reported
		line, err := bufio.NewReader(io.LimitReader(r, maxReport)).ReadBytes('\n')
		if err != nil {
			got.err = fmt.Errorf("read the report: %w", err)
		} else if err := json.Unmarshal(line, &got.Report); err != nil {
			got.err = fmt.Errorf("parse the report: %w", err)
		}
		ch <- got
	}()
	return ch
}

// sink stamps the first byte, counts and hashes, and keeps the head.
type sink struct {
	first int64
	n     int64
	hash  hash.Hash
	keep  int
	kept  []byte
}

func (s *sink) Write(p []byte) (int, error) {
	if s.first == 0 && len(p) > 0 {
		s.first = workload.Now()
	}
	s.n += int64(len(p))
	_, _ = s.hash.Write(p) // never fails
	s.kept = append(s.kept, p[:min(len(p), s.keep-len(s.kept))]...)
	return len(p), nil
}

// tail keeps the last bytes of stderr, to explain a child that left no report.
type tail struct{ buf []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - maxStderr; over > 0 {
		t.buf = t.buf[over:]
	}
	return len(p), nil
}

func (t *tail) String() string { return string(bytes.TrimSpace(t.buf)) }

// oneLine makes a message of a child safe and short enough for a table.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if r := []rune(s); len(r) > 300 {
		s = string(r[:300]) + "..."
	}
	return s
}
