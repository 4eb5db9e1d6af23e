package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/docker/go-units"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/kernel"
	"github.com/duplex-run/duplex/kernel/build"
)

var kernelCommand = command{
	name:    "kernel",
	args:    "fetch|build|ls|inspect|rm",
	summary: "Fetch, build, list, inspect and remove guest kernels",
	run: func(ctx context.Context, a *app, args []string) error {
		return a.group(ctx, kernelCommands, args)
	},
}

var kernelCommands = []command{
	{name: "fetch", summary: "Fetch the distribution's newest cloud kernel", run: runKernelFetch},
	{name: "build", summary: "Build a guest kernel with everything built in", run: runKernelBuild},
	{name: "ls", summary: "List the kernels, the default first", run: runKernelLs},
	{name: "inspect", args: "[NAME|FILE]", summary: "Say what a kernel is and what it lacks", run: runKernelInspect},
	{name: "rm", args: "NAME...", summary: "Remove kernels", run: runKernelRm},
}

func runKernelFetch(ctx context.Context, a *app, args []string) error {
	fs := a.Flags()
	asJSON := fs.Bool("json", false, "print JSON")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return a.Usage("unexpected argument %q", fs.Arg(0))
	}
	p := a.Progress()
	defer p.Done()
	k, err := kernel.Fetch(ctx, func(step string, fraction float64) { p.Update("kernel: "+step, fraction) })
	if err != nil {
		return err
	}
	p.Done()
	if *asJSON {
		return cmdline.PrintJSON(a.Out, k)
	}
	_, err = fmt.Fprintln(a.Out, k.Name)
	return err
}

func runKernelBuild(ctx context.Context, a *app, args []string) error {
	fs := a.Flags()
	var o build.Options
	fs.BoolVar(&o.Minimal, "minimal", false, "only what reaches a workload, for the quickest boot")
	fs.StringArrayVar(&o.Fragments, "config", nil, "`fragment` of kernel configuration, applied after ours (repeatable)")
	fs.StringVar(&o.Source, "source", "", "`package` (linux-source-6.1), directory or tarball; default the distribution's newest package")
	fs.IntVarP(&o.Jobs, "jobs", "j", 0, "compilers that run at once; default one for each CPU")
	asJSON := fs.Bool("json", false, "print JSON")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return a.Usage("unexpected argument %q", fs.Arg(0))
	}
	if o.Jobs < 0 {
		return a.Usage("--jobs %d is negative", o.Jobs)
	}
	p := a.Progress()
	defer p.Done()
	k, err := build.Build(ctx, o, func(step string, fraction float64) { p.Update("kernel: "+step, fraction) })
	if err != nil {
		return err
	}
	p.Done()
	if *asJSON {
		return cmdline.PrintJSON(a.Out, k)
	}
	_, err = fmt.Fprintln(a.Out, k.Name)
	return err
}

func runKernelLs(_ context.Context, a *app, args []string) error {
	fs := a.Flags()
	asJSON := fs.Bool("json", false, "print JSON")
	quiet := fs.BoolP("quiet", "q", false, "print names only")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return a.Usage("unexpected argument %q", fs.Arg(0))
	}
	list, err := kernel.List()
	if err != nil {
		return err
	}
	switch {
	case *asJSON:
		if list == nil {
			list = []*kernel.Kernel{}
		}
		return cmdline.PrintJSON(a.Out, list)
	case *quiet:
		var names []string
		for _, k := range list {
			names = append(names, k.Name)
		}
		return printNames(a.Out, names, false)
	}
	return printKernels(a.Out, list)
}

// printKernels prints a table; its last column is what --kernel takes in the place
// of the name.
func printKernels(w io.Writer, list []*kernel.Kernel) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "NAME\tSIZE\tMADE\t--kernel")
	for i, k := range list {
		short := ""
		switch {
		case i == 0 && !k.Built:
			short = "(default)"
		case k == kernel.Newest(list, k.Flavour()):
			short = k.Flavour()
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", k.Name, units.BytesSize(float64(k.Bytes)), k.Fetched.Format("2006-01-02"), short)
	}
	return tw.Flush()
}

func runKernelInspect(ctx context.Context, a *app, args []string) error {
	fs := a.Flags()
	asJSON := fs.Bool("json", false, "print JSON")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() > 1 {
		return a.Usage("unexpected argument %q", fs.Arg(1))
	}
	k, err := kernel.Find(fs.Arg(0))
	if err != nil {
		return err
	}
	info, err := kernel.Inspect(ctx, k)
	if err != nil {
		return err
	}
	if *asJSON {
		return cmdline.PrintJSON(a.Out, info)
	}
	return printKernel(a.Out, info)
}

func printKernel(w io.Writer, info *kernel.Info) error {
	var b strings.Builder
	line := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s %s\n", key+":", fmt.Sprintf(format, args...))
	}
	line("Name", "%s", info.Name)
	line("Image", "%s (%s)", info.Image, units.BytesSize(float64(info.Bytes)))
	line("Version", "%s", orUnknown(info.Version))
	if bz := info.BzImage; bz != nil {
		line("Format", "%s, boot protocol %s", info.Format, bz.Protocol)
		line("Compression", "%s", bz.Compression)
		line("Entry", "%s", map[bool]string{true: "64-bit at 0x200 of the bzImage", false: "no 64-bit entry in the bzImage"}[bz.Entry64])
	} else {
		line("Format", "%s", info.Format)
	}
	if v := info.Vmlinux; v != nil {
		line("Vmlinux", "%s (%s)", v.Path, units.BytesSize(float64(v.Bytes)))
		pvh := "no PVH entry"
		if v.PVHEntry != 0 {
			pvh = fmt.Sprintf("PVH at %#x", v.PVHEntry)
		}
		line("Entry", "64-bit at %#x, %s", v.Entry, pvh)
	}
	if info.Problem != "" {
		line("Problem", "%s", info.Problem)
	}
	line("Modules", "%s", orNone(info.ModulesDir))
	line("Config", "%s", orUnknown(info.ConfigSource))
	if info.ConfigSource == "" {
		b.WriteString(noConfig)
	} else {
		printNeeds(&b, info)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

const noConfig = `
No configuration found, so what it lacks is not known: a kernel built with
CONFIG_IKCONFIG=y carries its own, a packaged one has config-RELEASE beside it.
`

func printNeeds(b *strings.Builder, info *kernel.Info) {
	printOptions(b, "\nThe microVM needs:\n", info.Options)
	printOptions(b, "\nThe lab needs besides:\n", info.LabOptions)
	if len(info.Missing) == 0 {
		b.WriteString("\nNothing is missing for the microVM.\n")
		return
	}
	b.WriteString("\nMissing for the microVM:\n")
	for _, name := range info.Missing {
		fmt.Fprintf(b, "  %s\n", name)
	}
}

// printOptions prints a table of options; it fits 80 columns.
func printOptions(b *strings.Builder, title string, options []kernel.Option) {
	b.WriteString(title)
	for _, o := range options {
		value := o.Value
		switch {
		case o.Value == kernel.BuiltIn:
			value = "built in"
		case o.Value == kernel.AsModule:
			value = "module"
		case o.Value == kernel.NotSet && o.Optional:
			value = "not set"
		case o.Value == kernel.NotSet:
			value = "MISSING"
		}
		why := o.Why
		if o.Optional {
			why += " (optional)"
		}
		fmt.Fprintf(b, "  %-9s %-27s %s\n", value, o.Option, why)
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
