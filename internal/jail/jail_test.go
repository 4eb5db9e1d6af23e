package jail

import (
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/confine"
)

// Whatever the monitor may not do is refused, on every kind of thread, and
// reported by name.
func TestDenied(t *testing.T) {
	for what, a := range attempts {
		if a.want == "" {
			continue
		}
		roles := []Role{Monitor, VCPU}
		if strings.HasPrefix(what, "vcpu ") {
			roles = []Role{VCPU}
		}
		for _, role := range roles {
			t.Run(what+"/"+role.String(), func(t *testing.T) {
				t.Parallel()
				got := inJail(t, role, what, confine.Caller, false)
				switch d := got.denied; {
				case d == nil:
					t.Fatalf("not denied: status %d, %s", got.status, got.out)
				case d.Role != role || d.Syscall() != a.want || got.status != Status:
					t.Errorf("%v, status %d; want %s in role %v", d, got.status, a.want, role)
				case !strings.Contains(d.Error(), a.want) || !strings.Contains(d.Error(), role.String()) || !strings.Contains(d.Error(), a.arg):
					t.Errorf("%q does not say %s, %s and %v", d, a.want, a.arg, role)
				}
			})
		}
	}
}

// A machine's state can be read by a monitor that saves it, and there by no vCPU's
// thread. That no other monitor can is TestDenied's.
func TestSaving(t *testing.T) {
	for _, r := range savingRequests {
		for _, role := range []Role{Monitor, VCPU} {
			t.Run(r.name+"/"+role.String(), func(t *testing.T) {
				t.Parallel()
				got := inJail(t, role, whileSaving+r.name, confine.Caller, false)
				if may := strings.Contains(got.out, "the call was made"); may != (role == Monitor) || may != (got.denied == nil) {
					t.Errorf("status %d, denied %v\n%s", got.status, got.denied, got.out)
				}
			})
		}
	}
}

// A monitor works in its jail, in its own namespaces and without them.
func TestOrdinaryWork(t *testing.T) {
	for _, role := range []Role{Monitor, VCPU} {
		for mode, isolated := range map[string]bool{"isolated": true, "here": false} {
			t.Run(role.String()+"/"+mode, func(t *testing.T) {
				t.Parallel()
				got := inJail(t, role, "ordinary", confine.Caller, isolated)
				if got.denied != nil || got.status != 0 || !strings.HasSuffix(got.out, "done") {
					t.Errorf("status %d, denied %v\n%s", got.status, got.denied, got.out)
				}
				if !strings.Contains(got.out, "Filter:true") || isolated != strings.Contains(got.out, "Namespaces:true EmptyRoot:true") {
					t.Errorf("layers: %s", got.out)
				}
			})
		}
	}
}

func TestMissingLayers(t *testing.T) {
	if m := (Layers{Namespaces: true, EmptyRoot: true, Landlock: 1, Filter: true}).Missing(); len(m) != 0 {
		t.Errorf("nothing is missing, but %q", m)
	}
	if m := (Layers{Namespaces: true, Landlock: 1, Filter: true}).Missing(); len(m) != 1 || !strings.Contains(m[0], "no empty root") {
		t.Errorf("%q", m)
	}
	if m := strings.Join((Layers{}).Missing(), "\n"); !strings.Contains(m, "namespaces") || !strings.Contains(m, "Landlock") || !strings.Contains(m, "filter") {
		t.Errorf("%q", m)
	}
}

func TestReadDenialNonsense(t *testing.T) {
	if d, err := ReadDenial(strings.NewReader("")); d != nil || err != nil {
		t.Errorf("empty: %v, %v", d, err)
	}
	for _, s := range []string{"short", strings.Repeat("x", reportSize)} {
		if d, err := ReadDenial(strings.NewReader(s)); err == nil {
			t.Errorf("%q: %v", s, d)
		}
	}
}

// What the jail adds to the start of a process: compare "none" (namespaces and
// all) with "bare" (filter only).
func BenchmarkEnter(b *testing.B) {
	for mode, isolated := range map[string]bool{"isolated": true, "here": false} {
		b.Run(mode, func(b *testing.B) {
			for b.Loop() {
				if got := inJail(b, Monitor, "nothing", confine.Caller, isolated); got.status != 0 {
					b.Fatal(got)
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := (Policy{Shares: true, SelfPID: 1}).Filter(Monitor); err != nil {
			b.Fatal(err)
		}
	}
}
