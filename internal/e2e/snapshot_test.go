package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A snapshot is made, listed, used by different commands, refused when its files
// are not what they were, and removed.
func TestSnapshot(t *testing.T) {
	if !inLab() {
		t.Skip("needs a KVM that boots a stock kernel: TestInLab runs it there")
	}
	size := "--memory=128m"
	r := duplex(t, nil, "snapshot", "create", size, image)
	name := strings.TrimSpace(r.stdout)
	if r.status != 0 || name == "" {
		t.Fatalf("create: status %d, %q, %q", r.status, r.stdout, r.stderr)
	}
	var list []struct{ Name, Error string }
	r = duplex(t, nil, "snapshot", "ls", "--json")
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil || len(list) != 1 || list[0].Name != name || list[0].Error != "" {
		t.Errorf("ls: %v, %q, %q", err, r.stdout, r.stderr)
	}
	if r = duplex(t, nil, "snapshot", "inspect", name); !strings.Contains(r.stdout, "Memory:       128MiB") {
		t.Errorf("inspect: status %d, %q, %q", r.status, r.stdout, r.stderr)
	}
	warm := []string{"run", "--vm", "--warm", "--lab=never", size}
	for _, c := range []struct {
		args   []string
		status int
		stdout string
	}{
		{[]string{image, "/helper", "exit", "42"}, 42, ""},
		{[]string{"-e", "A=b c", "--workdir=/tmp", "--hostname=other", image, "/helper", "about"}, 0, `"A=b c"`},
		{[]string{image, "/missing"}, 127, ""},
	} {
		r := duplex(t, nil, concat(warm, c.args)...)
		if r.status != c.status || !strings.Contains(r.stdout, c.stdout) {
			t.Errorf("%v: status %d, %q, %q; want %d, %q", c.args, r.status, r.stdout, r.stderr, c.status, c.stdout)
		}
	}
	// The same snapshot serves a run with volumes and a network.
	volume := t.TempDir()
	r = duplex(t, nil, concat(warm, []string{"-v", volume + ":/new/place", "--network=user", image, "/helper", "touch", "/new/place/written"})...)
	if b, err := os.ReadFile(filepath.Join(volume, "written")); r.status != 0 || err != nil || string(b) != "x" {
		t.Errorf("with a volume and a network: status %d, %s; written %q, %v", r.status, r.stderr, b, err)
	}
	if r = duplex(t, nil, "snapshot", "ls", "-q"); r.stdout != name+"\n" {
		t.Errorf("snapshots afterwards: %q", r.stdout)
	}
	if r = duplex(t, nil, "snapshot", "prune"); r.status != 0 || r.stdout != "" {
		t.Errorf("prune of one that can be used: status %d, %q, %q", r.status, r.stdout, r.stderr)
	}
	dir := filepath.Join(os.Getenv("DUPLEX_CACHE"), "snapshots", name)
	if err := os.Chown(dir, 1234, 1234); err != nil {
		t.Fatal(err)
	}
	r = duplex(t, nil, concat(warm, []string{image, "/helper", "exit", "0"})...)
	if r.status != 125 || !strings.Contains(r.stderr, "another user") || !strings.Contains(r.stderr, "snapshots of your own") {
		t.Errorf("a snapshot of another user's: status %d, %q", r.status, r.stderr)
	}
	if err := os.Chown(dir, 0, 0); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "memory")
	info, err := os.Stat(path)
	if err != nil || info.Size() != 128<<20 {
		t.Fatalf("%v, %v", info, err)
	}
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	r = duplex(t, nil, concat(warm, []string{image, "/helper", "exit", "0"})...)
	if r.status != 125 || !strings.Contains(r.stderr, "damaged") || !strings.Contains(r.stderr, "duplex snapshot rm "+name) {
		t.Errorf("a memory that was cut: status %d, %q", r.status, r.stderr)
	}
	if r = duplex(t, nil, "snapshot", "prune"); r.status != 0 || r.stdout != name+"\n" {
		t.Errorf("prune of a damaged one: status %d, %q, %q", r.status, r.stdout, r.stderr)
	}
	if r = duplex(t, nil, "snapshot", "create", size, image); r.status != 0 || r.stdout != name+"\n" {
		t.Errorf("create: status %d, %q, %q", r.status, r.stdout, r.stderr)
	}
	if r = duplex(t, nil, "snapshot", "rm", name); r.status != 0 {
		t.Errorf("rm: status %d, %q", r.status, r.stderr)
	}
	if r = duplex(t, nil, "snapshot", "ls", "-q"); r.status != 0 || r.stdout != "" {
		t.Errorf("ls: status %d, %q", r.status, r.stdout)
	}
}

// What --warm cannot do is said before anything is made.
func TestWarmRefuses(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"run", "--container", "--warm", image}, "--warm is for microVMs"},
		{[]string{"run", "--warm", "-v", "/no/such/directory:/x", image}, "mkdir -p"},
		{[]string{"run", "--warm", "-p", "80:80", image}, "needs --network user"},
		{[]string{"snapshot", "prune", "name"}, "unexpected argument"},
		{[]string{"snapshot", "rm", "nothing"}, "no such file"},
		{[]string{"snapshot", "inspect", "nothing"}, "duplex snapshot ls"},
		{[]string{"snapshot", "create"}, "one image"},
	} {
		if r := duplex(t, nil, c.args...); r.status != 125 || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%v: status %d, %q; want 125, %q", c.args, r.status, r.stderr, c.want)
		}
	}
}
