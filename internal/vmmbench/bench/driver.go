package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/vmmbench"
	"github.com/duplex-run/duplex/internal/vmmbench/host"
)

// driver runs the monitors in the lab.
type driver struct {
	duplex, qemu, virtiofsd string
	kernel, initrd          string
	suites                  string
	runs                    int
	kicks                   bool
	out                     *json.Encoder
}

func (d *driver) flags() *flag.FlagSet {
	fs := flag.NewFlagSet(host.InLab, flag.ContinueOnError)
	for name, p := range map[string]*string{
		"duplex": &d.duplex, "qemu": &d.qemu, "virtiofsd": &d.virtiofsd,
		"kernel": &d.kernel, "initrd": &d.initrd, "suites": &d.suites,
	} {
		fs.StringVar(p, name, *p, "")
	}
	fs.BoolVar(&d.kicks, "kicks", d.kicks, "")
	fs.IntVar(&d.runs, "runs", d.runs, "")
	return fs
}

func driverMain(args []string) error {
	d := &driver{out: json.NewEncoder(os.Stdout)}
	if err := d.flags().Parse(args); err != nil {
		return err
	}
	go func() { _, _ = io.Copy(io.Discard, os.Stdin) }() // see vmmbench.Tick
	if err := d.prepare(); err != nil {
		return fmt.Errorf("prepare the lab: %w", err)
	}
	for run := range d.runs {
		order := slices.Clone(vmmbench.Monitors)
		if run%2 == 1 {
			slices.Reverse(order)
		}
		for _, m := range order {
			if err := d.boot(m, run); err != nil {
				return fmt.Errorf("%s, run %d: %w", m, run+1, err)
			}
		}
	}
	return nil
}

func (d *driver) prepare() error {
	if err := unix.Mount("debugfs", debugfs, "debugfs", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return err
	}
	// A file system device holds a file for each that the guest knows. virtiofsd
	// asks for a million by itself.
	files := unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	if d.kicks {
		if err := countKicks(); err != nil {
			return err
		}
	}
	if err := makeFiles(); err != nil {
		return err
	}
	if strings.Contains(d.suites, string(vmmbench.Net)) {
		if err := makeTap(); err != nil {
			return err
		}
		if err := serveNet(); err != nil {
			return err
		}
	}
	for name, cmd := range map[string][]string{
		vmmbench.QEMU: {d.qemu, "--version"}, vmmbench.Duplex: {d.duplex, "version"},
	} {
		text, err := exec.Command(cmd[0], cmd[1:]...).Output()
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(string(text), "\n")
		if err := d.out.Encode(vmmbench.Record{Monitor: name, Name: vmmbench.RecordVersion, Text: first}); err != nil {
			return err
		}
	}
	return nil
}

// bootTimeout bounds one boot with all its benchmarks.
const bootTimeout = 15 * time.Minute

// boot boots a guest on a monitor and writes down what comes of it.
func (d *driver) boot(name string, run int) error {
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()
	m, err := d.monitor(ctx, name)
	if err != nil {
		return err
	}
	defer m.stop()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	m.cmd.Stdout, m.cmd.Stderr = w, os.Stderr
	err = m.cmd.Start()
	_ = w.Close()
	if err != nil {
		return err
	}
	g := guest{driver: d, monitor: name, run: run, root: append(m.others, m.cmd.Process.Pid)}
	if err := g.follow(r); err != nil {
		// A duplex that is stuck says where.
		_ = m.cmd.Process.Signal(unix.SIGQUIT)
		return errors.Join(err, m.cmd.Wait())
	}
	return m.cmd.Wait()
}

// stuck is how long a benchmark may take, in time of the lab.
const stuck = 15 * time.Second

// follow takes what the guest writes, until it is done.
func (g *guest) follow(r io.Reader) error {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			lines <- s.Text()
		}
	}()
	var log []string
	for !g.done {
		select {
		case text, ok := <-lines:
			l, isLine := vmmbench.ParseLine(text)
			switch {
			case !ok:
				return fmt.Errorf("the guest ended early; its console: %s", strings.Join(log, "\n"))
			case !isLine:
				log = append(log, text)
				continue
			}
			if err := g.take(l); err != nil {
				return err
			}
		case <-time.After(stuck):
			c, err := readCounters()
			return errors.Join(fmt.Errorf("the guest is silent for %v; counters since the last benchmark's begin %+v", stuck, c.Sub(g.before)), err)
		}
	}
	go func() { // what it writes while it powers off
		for range lines {
		}
	}()
	return nil
}

// guest is one boot.
type guest struct {
	driver  *driver
	monitor string
	run     int
	root    []int // processes of the machine, without their descendants
	before  vmmbench.Counters
	idle    vmmbench.Counters
	done    bool
}

// take does what a line of the guest asks for.
func (g *guest) take(l vmmbench.Line) error {
	rec := vmmbench.Record{Monitor: g.monitor, Run: g.run, Name: l.Name, Measure: l.Measure}
	switch l.Step {
	case vmmbench.Begin:
		c, err := readCounters()
		g.before = c
		return err
	case vmmbench.End:
		c, err := readCounters()
		if err != nil {
			return err
		}
		c = c.Sub(g.before)
		if l.Name == vmmbench.Idle {
			g.idle = c
		} else {
			c = c.Sub(g.idle)
		}
		rec.Counters = &c
	case vmmbench.Failed:
		rec.Name, rec.Text = vmmbench.RecordFailed, l.Name+": "+l.Text
	case vmmbench.Version:
		rec.Monitor, rec.Name, rec.Text = "", vmmbench.RecordVersion, l.Text
	case vmmbench.Done:
		g.done = true
		mem, err := machineMemory(g.root, guestMemory)
		if err != nil {
			return err
		}
		rec.Name, rec.Memory = vmmbench.RecordMemory, mem
	}
	return g.driver.out.Encode(rec)
}

// guestMemory is that of the guests, in bytes: a size no other mapping has.
const guestMemory = 252 << 20

func mib(n int) string { return strconv.Itoa(n >> 20) }
