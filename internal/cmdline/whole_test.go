package cmdline

import (
	"slices"
	"testing"
)

// A link to duplex called duplex-runtime is the runtime's own program.
func TestArguments(t *testing.T) {
	for _, tt := range []struct{ argv, want []string }{
		{[]string{"duplex", "run"}, []string{"run"}},
		{[]string{"/usr/bin/duplex-runtime", "--root", "x", "list"}, []string{"oci", "--root", "x", "list"}},
		{[]string{"duplex-runtime"}, []string{"oci"}},
		{[]string{"duplex-runtime2", "run"}, []string{"run"}},
	} {
		if got := Arguments(tt.argv); !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.argv, got, tt.want)
		}
	}
}
