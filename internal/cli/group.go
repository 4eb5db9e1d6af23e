package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/runcli"
	"github.com/duplex-run/duplex/internal/workload"
)

// group runs the one of subs that args name: `duplex kernel ls`.
func (a *app) group(ctx context.Context, subs []command, args []string) error {
	parent := a.Cmd
	if len(args) == 0 {
		_, _ = fmt.Fprint(a.Err, groupHelp(parent, subs))
		return cmdline.Status(workload.StatusError)
	}
	switch args[0] {
	case "help", "--help", "-h":
		_, err := fmt.Fprint(a.Out, groupHelp(parent, subs))
		return err
	}
	for _, c := range subs {
		if c.name == args[0] {
			c.name = parent.Name + " " + c.name
			a.begin(c)
			return c.run(ctx, a, args[1:])
		}
	}
	return &workload.Error{
		Op:     fmt.Sprintf("unknown command %q", parent.Name+" "+args[0]),
		Remedy: fmt.Sprintf("'duplex %s --help' lists the commands", parent.Name),
	}
}

func groupHelp(parent runcli.Command, subs []command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s.\n\nUsage: duplex %s COMMAND [FLAGS] [ARGS]\n\nCommands:\n", parent.Summary, parent.Name)
	for _, c := range subs {
		fmt.Fprintf(&b, "  %-9s %s\n", c.name, c.summary)
	}
	fmt.Fprintf(&b, "\n'duplex %s COMMAND --help' says more.\n", parent.Name)
	return b.String()
}
