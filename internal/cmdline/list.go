package cmdline

import (
	"strings"

	"github.com/spf13/pflag"
)

// list is the value of a flag that can be given more than once. It is what pflag's
// StringArrayVar has, which makes a CSV writer of 4 KiB for each such flag, to say
// that its default is nothing.
type list struct{ values *[]string }

var _ pflag.SliceValue = list{}

// ListVar adds a flag to fs whose values are appended to p.
func ListVar(fs *pflag.FlagSet, p *[]string, name, short, usage string) {
	fs.VarP(list{p}, name, short, usage)
}

func (l list) String() string             { return strings.Join(*l.values, ",") }
func (list) Type() string                 { return "stringArray" }
func (l list) Set(value string) error     { return l.Append(value) }
func (l list) GetSlice() []string         { return *l.values }
func (l list) Replace(all []string) error { *l.values = all; return nil }

func (l list) Append(value string) error {
	*l.values = append(*l.values, value)
	return nil
}
