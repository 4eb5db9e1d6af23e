package cli

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/runcli"
)

func TestBootReportRefuses(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing", "x.svg")
	for _, tc := range []struct{ args, want string }{
		{"", "no image"},
		{"--container img", "--container"},
		{"--isolation=container img", "of microVMs"},
		{"-i img", "--interactive"},
		{"-t img", "--tty"},
		{"--trace=x img", "--trace"},
		{"--deterministic --lab=never img", "needs the lab"},
		{"--memory=1k img", "minimum"},
		{"--publish=80:80 img", "--network user"},
		{"--svg=" + missing + " img", "is no directory"},
		{"--perfetto=" + missing + " img", "is no directory"},
		{"--frame-rate=25 img", "unknown flag"},
	} {
		a := testApp(bootReportCommand)
		err := runBootReport(t.Context(), a, strings.Fields(tc.args))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want an error with %q", tc.args, err, tc.want)
		}
	}
}

// The boots get run's flags, and none of the report's own.
func TestBootReportHandsRunItsFlags(t *testing.T) {
	a := testApp(bootReportCommand)
	var f bootReportFlags
	fs := a.Flags()
	f.register(fs)
	args := strings.Fields("--json --svg=x --perfetto y --vm --lab=never -e A=1,2 -m 128m --network user -p 80:80 --timeout 5s img cmd --flag")
	if err := a.Parse(fs, args); err != nil {
		t.Fatal(err)
	}
	got := f.forRun(fs)
	want := []string{"--env=A=1,2", "--lab=never", "--memory=128m", "--network=user", "--publish=80:80", "--timeout=5s"}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, arg := range got { // run takes them
		var run runcli.Flags
		rfs := a.Flags()
		run.Register(rfs)
		if err := rfs.Parse([]string{arg}); err != nil {
			t.Errorf("%s: %v", arg, err)
		}
	}
}
