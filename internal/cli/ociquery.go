package cli

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/oci"
)

func ociList(_ context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error {
	quiet := fs.BoolP("quiet", "q", false, "ids only")
	format := fs.StringP("format", "f", "table", "`FORMAT`: table or json")
	if err := o.parse(fs, args, -1); err != nil {
		return err
	}
	list, err := oci.List(o.root)
	if err != nil {
		return o.fail(err)
	}
	states := make([]oci.State, 0, len(list))
	for _, c := range list {
		states = append(states, c.State())
	}
	switch {
	case *quiet:
		for _, s := range states {
			_, _ = fmt.Fprintln(o.out, s.ID)
		}
		return nil
	case *format == "json":
		return printJSON(o.out, states)
	case *format != "table":
		return o.usage("--format=%s: want table or json", *format)
	}
	w := tabwriter.NewWriter(o.out, 8, 1, 3, ' ', 0)
	_, _ = fmt.Fprintln(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER")
	for _, s := range states {
		_, _ = fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
	}
	return w.Flush()
}
