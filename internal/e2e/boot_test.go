package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// storedKernel is the guest kernel that the tests have. It is fetched where no
// test before this one needed it.
func storedKernel(t *testing.T) string {
	t.Helper()
	if r := duplex(t, nil, "kernel", "fetch"); r.status != 0 {
		t.Fatalf("kernel fetch: status %d, %q", r.status, r.stderr)
	}
	r := duplex(t, nil, "kernel", "ls", "--json")
	var list []struct{ Image string }
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil || len(list) == 0 {
		t.Fatalf("kernel ls: %v in %q, %q", err, r.stdout, r.stderr)
	}
	return list[0].Image
}

// A kernel without a root panics, says so on the serial port, and restarts: the
// machine ends. The trace of its exits is there afterwards, and can be read.
func TestBoot(t *testing.T) {
	if inLab() {
		t.Skip("it goes through the lab by itself")
	}
	dir := t.TempDir()
	config, trace, perfetto := filepath.Join(dir, "vm.json"), filepath.Join(dir, "boot.trace"), filepath.Join(dir, "boot.json")
	text, err := json.Marshal(map[string]any{
		"kernel": storedKernel(t), "memory": "128m", "cpus": 1, "serial": filepath.Join(dir, "serial"),
		"cmdline": "console=ttyS0 loglevel=3 panic=-1 cryptomgr.notests",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	r := duplex(t, nil, "boot", "--config", config, "--trace", trace)
	if r.status != 0 {
		t.Fatalf("status %d, stderr %q", r.status, r.stderr)
	}
	serial, err := os.ReadFile(filepath.Join(dir, "serial"))
	if err != nil || !strings.Contains(string(serial), "Kernel panic - not syncing: VFS: Unable to mount root fs") {
		t.Errorf("serial port: %q, %v", serial, err)
	}
	r = duplex(t, nil, "trace", trace)
	if r.status != 0 || !strings.Contains(r.stdout, "write serial+0x0") || !strings.Contains(r.stdout, "write i8042-command") {
		t.Errorf("trace: status %d, %q, %q", r.status, r.stdout, r.stderr)
	}
	var sum struct{ Exits, Dropped uint64 }
	r = duplex(t, nil, "trace", "--json", trace)
	if err := json.Unmarshal([]byte(r.stdout), &sum); err != nil || sum.Exits < 500 || sum.Dropped != 0 {
		t.Errorf("trace --json: %v, %+v", err, sum)
	}
	if r = duplex(t, nil, "trace", "--perfetto", perfetto, trace); r.status != 0 {
		t.Errorf("trace --perfetto: status %d, %q", r.status, r.stderr)
	}
	var events struct{ TraceEvents []json.RawMessage }
	data, err := os.ReadFile(perfetto)
	if err == nil {
		err = json.Unmarshal(data, &events)
	}
	if err != nil || uint64(len(events.TraceEvents)) < sum.Exits {
		t.Errorf("perfetto: %d events, %v", len(events.TraceEvents), err)
	}
}

// What cannot be booted is refused with the reason, before a machine is made.
func TestBootRefuses(t *testing.T) {
	dir := t.TempDir()
	text, config := filepath.Join(dir, "text"), filepath.Join(dir, "config")
	if err := os.WriteFile(text, []byte(strings.Repeat("no kernel\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte(`{"kernal": "x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "no --kernel given"},
		{[]string{"--kernel=" + dir + "/absent"}, "no such file"},
		{[]string{"--kernel=" + text}, "not a"},
		{[]string{"--config=" + config}, `unknown key "kernal"`},
		{[]string{"--config=" + dir + "/absent"}, "no such file"},
		{[]string{"--kernel=" + text, "--disk=" + dir + "/absent"}, "no such file"},
		{[]string{"--kernel=" + text, "--disk=x,rw"}, `unknown option "rw"`},
		{[]string{"--kernel=" + text, "--net=bridge"}, "want tap=NAME or user"},
		{[]string{"--kernel=" + text, "--net=tap=nosuchtap0"}, "no such network interface"},
		{[]string{"--kernel=" + text, "--share=" + dir + "/absent:tag"}, "no such file"},
		{[]string{"--kernel=" + text, "--share=" + dir}, "DIR:TAG"},
		{[]string{"--kernel=" + text, "--cpus=256"}, "out of range"},
		{[]string{"--kernel=" + text, "--memory=lots"}, "not a size"},
		{[]string{"--kernel=" + text, "-p=80:80"}, "needs --net user"},
		{[]string{"--kernel=" + text, "extra"}, `"extra" is not a flag`},
	} {
		args := concat([]string{"boot", "--lab=never"}, c.args)
		r := duplex(t, nil, args...)
		if r.status != 125 || !strings.Contains(r.stderr, c.want) || r.stdout != "" {
			t.Errorf("%q: status %d, stdout %q, stderr %q; want 125 and %q", args, r.status, r.stdout, r.stderr, c.want)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"run", "--container", "--network=tap=t0,address=10.0.0.2/24", image}, "TAP interfaces are for microVMs"},
		{[]string{"run", "--vm", "--network=host", image}, "no use of the host's network"},
		{[]string{"run", "--vm", "-p", "80:80", image}, "needs --network user"},
		{[]string{"trace", text}, "not a trace file"},
	} {
		r := duplex(t, nil, c.args...)
		if r.status != 125 || !strings.Contains(r.stderr, c.want) {
			t.Errorf("%q: status %d, stderr %q; want 125 and %q", c.args, r.status, r.stderr, c.want)
		}
	}
}
