package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/duplex-run/duplex/initramfs"
	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/launch"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/kernel"
)

// cmdline is the kernel's command line. The machine reboots (which ends QEMU)
// at once when the kernel panics, and the options after that skip what an
// emulated machine of a known make has no need of.
const cmdline = "console=ttyS0 quiet panic=-1 reboot=t no_timer_check tsc=reliable " +
	"random.trust_cpu=on mitigations=off " +
	agentproto.TransportKey + "=" + agentproto.TransportSerial

// prepare makes everything that the machine needs.
func prepare(ctx context.Context, o Options) (config, *agentproto.Start, error) {
	khz := make(chan int64, 1)
	go func() { khz <- measureTSC() }()
	k, err := kernel.Find(o.Kernel)
	if err != nil {
		return config{}, nil, err
	}
	image, err := k.Vmlinux(ctx)
	if err != nil {
		return config{}, nil, err
	}
	initrd, _, err := initramfs.Build(ctx, initramfs.Options{Kernel: k, Set: initramfs.Lab})
	if err != nil {
		return config{}, nil, err
	}
	list, err := o.cargo()
	if err != nil {
		return config{}, nil, err
	}
	packs, disks, err := list.pack(ctx)
	if err != nil {
		return config{}, nil, err
	}
	tsc := int64(deterministicTSC)
	if !o.Deterministic {
		tsc = <-khz
	}
	c := config{kernel: image, initrd: initrd, append: fmt.Sprintf("%s tsc_early_khz=%d", cmdline, tsc), memory: o.Memory,
		cpus: o.CPUs, deterministic: o.Deterministic, disks: disks}
	return c, &agentproto.Start{
		Spec: workload.Spec{
			ID: "lab", Hostname: "lab", Argv: o.Argv, Env: o.environ(), Cwd: o.Cwd,
			TTY: o.TTY, Size: o.Size, Interactive: o.Interactive,
		},
		TimeNs: time.Now().UnixNano(),
		Lab:    &agentproto.Lab{Packs: packs, Return: list.back},
	}, nil
}

// InLab is set in the environment of everything that runs in the lab.
const InLab = "DUPLEX_IN_LAB"

// environ is the environment of the command: the caller's DUPLEX_ variables,
// Options.Env, and what says where it is.
func (o Options) environ() []string {
	env := []string{"PATH=" + launch.DefaultPath, "HOME=/root"}
	if term := os.Getenv("TERM"); o.TTY && term != "" {
		env = append(env, "TERM="+term)
	}
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, "DUPLEX_") {
			env = append(env, e)
		}
	}
	return append(append(env, o.Env...), InLab+"=1")
}

// cargo lists what goes into the lab, and what comes back.
type cargo struct {
	items []string // absolute paths, each once
	back  []string // directories
}

// add adds the file or directory at path, if it is there.
func (c *cargo) add(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	for _, have := range c.items {
		if have == path {
			return nil
		}
	}
	c.items = append(c.items, path)
	return nil
}

func serial(i int) string { return fmt.Sprintf("pack%d", i) }
