package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/workload"
)

// exec refuses docker's flags that it lacks, as run does.
func TestExecRefusesDockerFlags(t *testing.T) {
	for _, arg := range []string{"--privileged", "--detach-keys=ctrl-x"} {
		var errs bytes.Buffer
		status := Main([]string{"duplex", "exec", arg, "run", "true"}, nil, &bytes.Buffer{}, &errs)
		if status != workload.StatusError || !strings.Contains(errs.String(), " is not supported: ") {
			t.Errorf("exec %s: %d, %q", arg, status, errs.String())
		}
	}
}
