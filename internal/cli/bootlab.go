package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/duplex-run/duplex/internal/runcli"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/lab"
	"github.com/duplex-run/duplex/microvm"
)

// bootInLab runs the same command line on the same files in the lab. Disks and
// shared directories that the guest changes come back.
func (a *app) bootInLab(ctx context.Context, fs *pflag.FlagSet, o *bootOptions, h *microvm.Hardware) error {
	for _, n := range h.Networks {
		if n.Tap != "" {
			return &workload.Error{Op: "boot in the lab", Err: fmt.Errorf("the interface %s is not there", n.Tap),
				Remedy: "Use --net user, or a host whose KVM boots a stock kernel."}
		}
	}
	exe, cwd, err := here()
	if err != nil {
		return err
	}
	carry := []string{h.Kernel}
	if h.Initrd != "" {
		carry = append(carry, h.Initrd)
	}
	for _, d := range h.Disks {
		carry = append(carry, d.Path)
	}
	for _, s := range h.Shares {
		carry = append(carry, s.Dir)
	}
	argv := []string{exe, fs.Name()}
	fs.Visit(func(f *pflag.Flag) { // those of --config, too
		if f.Name == "config" || f.Name == "lab" || f.Name == "kernel" {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			for _, v := range list.GetSlice() {
				argv = append(argv, "--"+f.Name+"="+v)
			}
			return
		}
		argv = append(argv, "--"+f.Name+"="+f.Value.String())
	})
	stdio := o.serial == "stdio" || o.console == "stdio"
	return a.inLab(ctx, lab.Options{
		Argv: append(argv, "--lab=never", "--kernel="+h.Kernel), Env: runcli.FromCaller([]string{"NO_COLOR", "TERM"}),
		Cwd: cwd, Carry: carry, CarryOnly: true, Output: o.outputs(),
		Memory: max(labMemory, int64(h.Memory)+labMemory/2), Interactive: stdio, TTY: stdio && term.IsTerminal(int(a.In.Fd())),
	}, new(workload.Recorder))
}

// outputs are the files that the command writes beside the guest's own.
func (o *bootOptions) outputs() []string {
	return slices.DeleteFunc([]string{o.trace, o.serial, o.console}, func(s string) bool {
		return s == "" || s == "stdio" || s == "none"
	})
}
