package cmdline

import (
	"slices"
	"testing"

	"github.com/spf13/pflag"
)

// A list is to its users what pflag's own is.
func TestListVar(t *testing.T) {
	var own, pflags []string
	fs := Flags("list")
	ListVar(fs, &own, "own", "o", "give `ONE` more")
	fs.StringArrayVarP(&pflags, "pflags", "p", nil, "give `ONE` more")
	if got, want := fs.Lookup("own"), fs.Lookup("pflags"); got.Value.Type() != want.Value.Type() || got.NoOptDefVal != want.NoOptDefVal {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := fs.FlagUsages(), "  -o, --own ONE      give ONE more\n  -p, --pflags ONE   give ONE more\n"; got != want {
		t.Errorf("usage %q, want %q", got, want)
	}
	if err := fs.Parse([]string{"--own=a,b", "-o", "c", "--pflags=a,b", "-p", "c", "--own", ""}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a,b", "c", ""}; !slices.Equal(own, want) || !slices.Equal(pflags, want[:2]) {
		t.Errorf("got %q and %q", own, pflags)
	}
	value := fs.Lookup("own").Value.(pflag.SliceValue)
	if err := value.Replace([]string{"d"}); err != nil || !slices.Equal(value.GetSlice(), own) || !slices.Equal(own, []string{"d"}) {
		t.Errorf("replaced: %v, %q, %q", err, value.GetSlice(), own)
	}
}
