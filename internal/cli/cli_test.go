package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/workload"
)

func TestErrorsArePrintedOnceWithTheRemedy(t *testing.T) {
	var out, errs bytes.Buffer
	status := Main([]string{"duplex", "version", "--nope"}, os.Stdin, &out, &errs)
	want := "duplex: version: unknown flag: --nope\n'duplex version --help' lists the flags\n"
	if status != workload.StatusError || errs.String() != want || out.Len() != 0 {
		t.Errorf("status %d, stdout %q, stderr %q", status, &out, &errs)
	}
	if status := Main([]string{"duplex", "version", "--help"}, os.Stdin, &out, &errs); status != 0 || !strings.Contains(out.String(), "--json") {
		t.Errorf("help: status %d, %q", status, &out)
	}
}
