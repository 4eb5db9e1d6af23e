package microvm

import (
	"bytes"
	"testing"

	"github.com/duplex-run/duplex/internal/workload"
)

func TestGuestExit(t *testing.T) {
	r := guestOnly(t)
	var out, errs bytes.Buffer
	rec := new(workload.Recorder)
	exit, err := r.Run(t.Context(), helperSpec("both"), workload.Stdio{Out: &out, Err: &errs}, rec)
	if err != nil || exit.Status() != 0 || out.String() != "to stdout" || errs.String() != "to stderr" {
		t.Fatalf("%v, %v, %q, %q", exit, err, &out, &errs)
	}
	t.Log(rec.Stamps(), rec.Usage())
}
