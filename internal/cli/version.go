package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/duplex-run/duplex/internal/cmdline"
)

var versionCommand = command{
	name:    "version",
	summary: "Print the version",
	run:     runVersion,
}

type versionInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	Arch    string `json:"arch"`
}

func runVersion(_ context.Context, a *app, args []string) error {
	fs := a.Flags()
	asJSON := fs.Bool("json", false, "print JSON")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return a.Usage("unexpected argument %q", fs.Arg(0))
	}
	v := versionInfo{Version: cmdline.Version(), Go: runtime.Version(), Arch: runtime.GOARCH}
	if *asJSON {
		return json.NewEncoder(a.Out).Encode(v)
	}
	_, err := fmt.Fprintf(a.Out, "duplex %s (%s, %s)\n", v.Version, v.Go, v.Arch)
	return err
}
