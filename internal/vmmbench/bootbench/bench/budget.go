package main

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/duplex-run/duplex/internal/vmmbench/bootbench"
)

// budgetRuns is how often each boot is repeated: in a deterministic lab they differ
// by a few thousandths.
const budgetRuns = 2

// hold measures every kernel that is here and holds it to the budget, or makes it
// the budget.
func (o *options) hold(ctx context.Context, b *bench) error {
	data, err := os.ReadFile(o.budget)
	if err != nil {
		return err
	}
	budget, err := bootbench.ParseBudget(data)
	if err != nil {
		return err
	}
	var cases []bootbench.Case
	var flavours []bootbench.Kernel
	for _, k := range []bootbench.Kernel{bootbench.Distribution, bootbench.Minimal} {
		if b.kernels[k] == nil {
			continue
		}
		flavours = append(flavours, k)
		cases = append(cases, budget.Cases(k, b.kernels[k].Name)...)
		if c := (bootbench.Case{What: bootbench.Bare, Monitor: bootbench.QEMU, Kernel: k}); o.write && !slices.Contains(cases, c) {
			cases = append(cases, c)
		}
	}
	records, err := b.measure(ctx, deterministic, cases, budgetRuns)
	if err != nil {
		return err
	}
	for _, k := range flavours {
		if o.write {
			err = errors.Join(err, budget.Set(k, b.kernels[k].Name, records))
		}
		err = errors.Join(err, budget.Judge(os.Stdout, k, b.kernels[k].Name, records))
	}
	if err != nil || !o.write {
		return err
	}
	if data, err = budget.Encode(); err != nil {
		return err
	}
	return os.WriteFile(o.budget, data, 0o666)
}
