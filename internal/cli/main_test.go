package cli

import (
	"io"

	"github.com/duplex-run/duplex/internal/runcli"
)

// testApp is an app of a command whose output nobody reads.
func testApp(c command) *app {
	a := &app{App: &runcli.App{Out: io.Discard, Err: io.Discard}}
	a.Whole = a
	a.begin(c)
	return a
}
