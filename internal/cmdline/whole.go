package cmdline

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// runtimeName is what a link to duplex is called that engines can take as a runtime,
// as it is: they give a runtime's program one word.
const runtimeName = "duplex-runtime"

// Arguments are those behind the program's name, which may stand for the first.
func Arguments(argv []string) []string {
	if filepath.Base(argv[0]) == runtimeName {
		return append([]string{"oci"}, argv[1:]...)
	}
	return argv[1:]
}

// wholeName is argv[0] by which all of duplex is entered, whatever follows
// (scripts/build).
const wholeName = "duplex-whole"

// BecomeWhole has all of duplex run args, which this program, which makes containers
// only, cannot. It returns only when it could not; op is what was to be done.
func BecomeWhole(op string, args []string) error {
	err := errors.New("this program makes containers only")
	if os.Args[0] != wholeName {
		err = unix.Exec("/proc/self/exe", append([]string{wholeName}, args...), Environ())
	}
	return &workload.Error{Op: op, Err: err, Remedy: "Use the duplex of 'make build'."}
}
