package cli

import (
	"context"
	"errors"
	"slices"

	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/kernel"
)

func runKernelRm(ctx context.Context, a *app, args []string) error {
	fs := a.Flags()
	asJSON := fs.Bool("json", false, "print JSON")
	force := fs.BoolP("force", "f", false, "also the default, which 'run' takes without --kernel")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return a.Usage("which kernel?")
	}
	var removed []string
	var errs error
	for _, name := range fs.Args() {
		k, err := kernelToRemove(name, *force)
		if err == nil {
			err = kernel.Remove(ctx, k)
		}
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		removed = append(removed, k.Name)
	}
	return errors.Join(printNames(a.Out, removed, *asJSON), errs)
}

// kernelToRemove finds the kernel of that name, whole: what is to be removed is not
// guessed from its beginning.
func kernelToRemove(name string, force bool) (*kernel.Kernel, error) {
	all, err := kernel.List()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(k *kernel.Kernel) bool { return k.Name == name })
	switch {
	case i < 0:
		return nil, &workload.Error{Op: "remove the kernel " + name, Err: errors.New("no kernel has this name"),
			Remedy: "'duplex kernel ls' lists them; give the whole name."}
	case i == 0 && !all[i].Built && !force:
		return nil, &workload.Error{Op: "remove the kernel " + name, Err: errors.New("it is the default, which the lab boots too"),
			Remedy: "--force removes it all the same; 'duplex kernel fetch' gets another."}
	}
	return all[i], nil
}
