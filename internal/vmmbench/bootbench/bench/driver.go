package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/duplex-run/duplex/internal/vmmbench/bootbench"
	"github.com/duplex-run/duplex/internal/vmmbench/host"
)

// driver boots everything in the lab.
type driver struct {
	duplex, qemu string
	bare         string // initramfs
	image, disk  string // digest and EROFS file
	// By kernel: vmlinux, duplex's initramfs, that of QEMU's guest, its name.
	distribution, minimal [4]string
	cases                 string
	runs                  int
	out                   *json.Encoder
}

// files are the places of vmlinux, duplex's initramfs, and that of QEMU's guest, and
// the kernel's name.
func (d *driver) files(k bootbench.Kernel) [4]*string {
	f := &d.distribution
	if k == bootbench.Minimal {
		f = &d.minimal
	}
	return [4]*string{&f[0], &f[1], &f[2], &f[3]}
}

func (d *driver) flags() *flag.FlagSet {
	fs := flag.NewFlagSet(host.InLab, flag.ContinueOnError)
	for name, p := range map[string]*string{
		"duplex": &d.duplex, "qemu": &d.qemu, "bare": &d.bare, "image": &d.image, "disk": &d.disk, "cases": &d.cases,
	} {
		fs.StringVar(p, name, *p, "")
	}
	for _, k := range []bootbench.Kernel{bootbench.Distribution, bootbench.Minimal} {
		for i, p := range d.files(k) {
			fs.StringVar(p, string(k)+[]string{"", "-initrd", "-guest", "-name"}[i], *p, "")
		}
	}
	fs.IntVar(&d.runs, "runs", d.runs, "")
	return fs
}

// seed makes the order of the cases the same in every lab.
const seed = 4

func driverMain(args []string) error {
	d := &driver{out: json.NewEncoder(os.Stdout)}
	if err := d.flags().Parse(args); err != nil {
		return err
	}
	go func() { _, _ = io.Copy(io.Discard, os.Stdin) }() // see vmmbench.Tick
	if err := d.versions(); err != nil {
		return err
	}
	var cases []bootbench.Case
	for name := range strings.SplitSeq(d.cases, ",") {
		c, ok := bootbench.FindCase(name)
		if !ok {
			return fmt.Errorf("no case %q", name)
		}
		cases = append(cases, c)
	}
	order := rand.New(rand.NewPCG(seed, 0))
	for run := -1; run < d.runs; run++ { // the first reads what is cached after it
		order.Shuffle(len(cases), func(i, j int) { cases[i], cases[j] = cases[j], cases[i] })
		for _, c := range cases {
			ns, err := d.boot(c)
			if err != nil {
				return fmt.Errorf("%s, run %d: %w", c.Name(), run+1, err)
			}
			if err := d.out.Encode(bootbench.Record{Case: c.Name(), Run: run, Ns: ns}); err != nil {
				return err
			}
		}
	}
	return nil
}

// versions says what is measured.
func (d *driver) versions() error {
	for _, cmd := range [][]string{{d.duplex, "version"}, {d.qemu, "--version"}} {
		text, err := exec.Command(cmd[0], cmd[1:]...).Output()
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(string(text), "\n")
		if err := d.out.Encode(bootbench.Record{Text: first}); err != nil {
			return err
		}
	}
	return nil
}

// bootTimeout bounds one boot, in time of the lab.
const bootTimeout = 2 * time.Minute

// settle is left between two boots for what the last one leaves to be done.
const settle = 50 * time.Millisecond

func (d *driver) boot(c bootbench.Case) (map[string]int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), bootTimeout)
	defer cancel()
	defer time.Sleep(settle)
	if c.What == bootbench.Bundle {
		return d.runBundle(ctx, c)
	}
	if c.What != bootbench.Bare && c.Monitor != bootbench.QEMU {
		return d.runImage(ctx, c)
	}
	return d.bootSerial(ctx, d.command(ctx, c), c)
}
