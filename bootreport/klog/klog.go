package klog

import (
	"bytes"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds on what is taken from a log.
const (
	maxBytes = 8 << 20
	maxLines = 64 << 10
	maxText  = 256 // runes of a line that are kept
	maxName  = 80  // bytes of the name of an initcall, module or step
	// maxTime is the latest time that is believed: a boot is over within the hour.
	maxTime = time.Hour
)

// Line is a record of the log.
type Line struct {
	// At is the time since the kernel's clock started, by that clock.
	At   time.Duration
	Text string
}

// Call is an initcall, or the probe of a device.
type Call struct {
	// Name is the function's, without its offset, or the device's. A kernel without
	// CONFIG_KALLSYMS has an address in its place.
	Name string
	// Module it belongs to; "" for the kernel itself and for probes.
	Module string
	// At is when the log says that it began.
	At time.Duration
	// Took is what the kernel measured, without writing the log.
	Took time.Duration
	// Result is what it returned, 0 or a negative error number.
	Result int
}

// Log is what a kernel's log says.
type Log struct {
	Lines     []Line
	Initcalls []Call // in the order they ended
	Probes    []Call
	// Behind is how far the log's clock had fallen behind the clock that it is made
	// of, by the kernel's own word, when the kernel declared that one stable
	// (kernel/sched/clock.c); 0 for a kernel that trusted it from the start.
	Behind time.Duration
	// Lost records were overwritten before they were read; Bad lines are no records.
	Lost, Bad int
}

// Parse reads a log. Whatever it holds, the result is well-formed; lines that make
// no sense are counted in Bad.
func Parse(text []byte) *Log {
	p := parser{open: map[string]time.Duration{}}
	text = text[:min(len(text), maxBytes)]
	for len(text) > 0 && len(p.log.Lines) < maxLines {
		line, rest, _ := bytes.Cut(text, []byte{'\n'})
		text = rest
		if len(line) == 0 || line[0] == ' ' {
			continue
		}
		if !p.record(string(line)) {
			p.log.Bad++
		}
	}
	return &p.log
}

type parser struct {
	log  Log
	next uint64                   // sequence number of the next record
	last time.Duration            // time of the last one
	open map[string]time.Duration // initcalls that were called
}

// record reads one record.
func (p *parser) record(line string) bool {
	head, text, ok := strings.Cut(line, ";")
	fields := strings.Split(head, ",")
	if !ok || len(fields) < 3 {
		return false
	}
	seq, err := strconv.ParseUint(fields[1], 10, 63)
	if err != nil {
		return false
	}
	us, err := strconv.ParseUint(fields[2], 10, 63)
	if err != nil || us > uint64(maxTime/time.Microsecond) {
		return false
	}
	if seq > p.next {
		p.log.Lost += int(min(seq-p.next, 1<<30))
	}
	p.next = max(p.next, seq+1)
	p.last = max(p.last, time.Duration(us)*time.Microsecond)
	text = clean(text, maxText)
	p.log.Lines = append(p.log.Lines, Line{p.last, text})
	p.call(text)
	if rest, ok := strings.CutPrefix(text, "sched_clock: Marking stable "); ok {
		p.behind(rest)
	}
	return true
}

// behind reads "(GTOD, OFFSET)->(RAW, OFFSET)" in nanoseconds, of which the last is
// what the log's clock now adds to the raw one.
func (p *parser) behind(s string) {
	_, last, _ := strings.Cut(strings.TrimSuffix(s, ")"), "->(")
	_, offset, ok := strings.Cut(last, ", ")
	n, err := strconv.ParseInt(offset, 10, 64)
	if ok && err == nil && n < 0 && n > -int64(maxTime) {
		p.log.Behind = time.Duration(-n)
	}
}

// call takes what initcall_debug writes out of a line.
func (p *parser) call(text string) {
	if rest, ok := strings.CutPrefix(text, "calling  "); ok {
		if c, _, ok := function(rest); ok && len(p.open) < maxLines {
			p.open[c.Name+" "+c.Module] = p.last
		}
		return
	}
	if rest, ok := strings.CutPrefix(text, "initcall "); ok {
		c, rest, ok := function(rest)
		if !ok || !returned(rest, &c) {
			return
		}
		key := c.Name + " " + c.Module
		at, called := p.open[key]
		delete(p.open, key)
		if !called {
			at = max(0, p.last-c.Took)
		}
		c.At = at
		p.log.Initcalls = append(p.log.Initcalls, c)
		return
	}
	if rest, ok := strings.CutPrefix(text, "probe of "); ok {
		name, rest, _ := strings.Cut(rest, " ")
		c := Call{Name: clean(name, maxName)}
		if name != "" && returned(rest, &c) {
			c.At = max(0, p.last-c.Took)
			p.log.Probes = append(p.log.Probes, c)
		}
	}
}

// function reads "NAME+OFFSET/SIZE [MODULE] REST".
func function(s string) (c Call, rest string, ok bool) {
	name, rest, _ := strings.Cut(s, " ")
	name, _, _ = strings.Cut(name, "+")
	if strings.HasPrefix(rest, "[") {
		module, after, found := strings.Cut(rest[1:], "] ")
		if !found {
			return c, "", false
		}
		c.Module, rest = clean(module, maxName), after
	}
	c.Name = clean(name, maxName)
	return c, rest, c.Name != ""
}

// returned reads "returned RESULT after N usecs" into c.
func returned(s string, c *Call) bool {
	f := strings.Fields(s)
	if len(f) < 5 || f[0] != "returned" || f[2] != "after" || f[4] != "usecs" {
		return false
	}
	result, err := strconv.ParseInt(f[1], 10, 32)
	if err != nil {
		return false
	}
	us, err := strconv.ParseUint(f[3], 10, 63)
	if err != nil || us > uint64(maxTime/time.Microsecond) {
		return false
	}
	c.Result, c.Took = int(result), time.Duration(us)*time.Microsecond
	return true
}

// clean keeps at most limit runes of s, and of those the printable ASCII ones: the
// kernel writes all others as \xNN (print_ext_body).
func clean(s string, limit int) string {
	var b strings.Builder
	for _, r := range s {
		if limit--; limit < 0 {
			break
		}
		if r < ' ' || r > '~' || r == utf8.RuneError {
			r = '?'
		}
		b.WriteRune(r)
	}
	return b.String()
}
