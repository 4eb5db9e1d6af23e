// Package imports tests the one structural rule: imports point downward.
package imports

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/duplex-run/duplex/"

// layers lists the packages from the top down. A package may import packages
// of its own family (the same first match) and of layers below, never above;
// packages of one layer do not import each other.
var layers = [][]string{
	{"cmd", "internal/e2e", "internal/vmmbench", "internal/startbench"},
	{"internal/cli"},
	{"bootreport", "internal/clones"},
	{"compare", "internal/ocicli", "internal/runcli"},
	{"lab", "oci"},
	{"microvm", "container"},
	{"initramfs", "network", "internal/runs"},
	{"kernel", "image", "vmm"},
	{"internal/launch", "internal/agentproto", "internal/hostdir", "internal/hostcheck", "internal/embedded", "internal/console", "internal/jail", "internal/procstat", "internal/cmdline"},
	{"internal/netif", "internal/seccomp", "internal/confine", "internal/lazyregexp", "internal/workload", "internal/testutil", "internal/lean", "internal/sysmon", "internal/tinyelf", "internal/plainjson"},
}

// alone may import nothing of the module but its own children.
var alone = []string{"vmm", "internal/workload"}

func family(pkg string) (layer int, name string) {
	for i, names := range layers {
		for _, n := range names {
			if pkg == n || strings.HasPrefix(pkg, n+"/") {
				return i, n
			}
		}
	}
	return -1, ""
}

// small are the programs that start quickly because they link little, and what none of
// them may link.
var (
	small = map[string][]string{ // and more that one may not
		"cmd/duplex-oci": nil, "cmd/duplex-run": {"regexp"}, "container/init": {"regexp", "crypto"},
	}
	tooMuch = []string{
		"net/http", "crypto/tls", "crypto/x509",
		"gvisor.dev/", "github.com/vishvananda/netlink", "github.com/mdlayher/netlink", "github.com/google/nftables",
		"github.com/klauspost/compress", "github.com/moby/profiles",
		module + "microvm", module + "vmm/", module + "kernel", module + "initramfs", module + "lab", module + "network/user",
	}
)

func TestSmallPrograms(t *testing.T) {
	for program, more := range small {
		out, err := exec.Command("go", "list", "-deps", module+program).CombinedOutput()
		if err != nil {
			t.Fatalf("go list: %v\n%s", err, out)
		}
		deps := strings.Fields(string(out))
		if !slices.Contains(deps, "os") {
			t.Errorf("%s: dependencies %q: the test is blind", program, deps)
		}
		for _, dep := range deps {
			for _, no := range slices.Concat(tooMuch, more) {
				if dep == no || strings.HasPrefix(dep, no) && (strings.HasSuffix(no, "/") || dep[len(no)] == '/') {
					t.Errorf("%s links %s", program, dep)
				}
			}
		}
	}
}

func TestImportsPointDownward(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}`, module+"...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		from, to, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || !strings.HasPrefix(to, module) {
			continue
		}
		from, to = strings.TrimPrefix(from, module), strings.TrimPrefix(to, module)
		seen++
		fl, fn := family(from)
		tl, tn := family(to)
		switch {
		case fl < 0 || tl < 0:
			t.Errorf("%s imports %s: not in the layer table", from, to)
		case fn == tn:
		case tl <= fl:
			t.Errorf("%s imports %s: imports point downward", from, to)
		}
		for _, a := range alone {
			if fn == a && tn != a {
				t.Errorf("%s imports %s: %s imports only its own children", from, to, a)
			}
		}
	}
	if seen == 0 {
		t.Fatal("no import of the module's own packages found: the test is blind")
	}
}
