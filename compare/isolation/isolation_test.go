package isolation

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func host() HostFacts {
	return HostFacts{Kernel: "6.18.0", BootID: "aaaa", Network: Network{Namespace: "net:[1]"}, Values: Values{
		BTime: 1000, MemTotal: 4096, CPUModel: "Model T", Mounts: []string{"8:1 ext4 /dev/sda1", "0:5 devtmpfs dev"},
	}}
}

func TestVerdictsFollowTheBootID(t *testing.T) {
	attempts := []Attempt{
		{Name: "mount", Allowed: true},
		{Name: "mknod", Errno: "EPERM"},
		{Name: "set clock", Allowed: true, Errno: "EINVAL"},
		{Name: "ptrace", Errno: "SIGSYS"},
		{Name: "bpf", Step: "start a child: ENOENT"},
	}
	for _, tc := range []struct {
		name, bootID string
		want         []string
	}{
		{"same kernel", "aaaa", []string{"allowed", "denied (EPERM)", "allowed", "denied (SIGSYS)", "denied (not tried: start a child: ENOENT)"}},
		{"own kernel", "bbbb", []string{"allowed, guest only", "denied (EPERM)", "allowed, guest only", "denied (SIGSYS)", "denied (not tried: start a child: ENOENT)"}},
		{"hidden boot id is no own kernel", "", []string{"allowed", "denied (EPERM)", "allowed", "denied (SIGSYS)", "denied (not tried: start a child: ENOENT)"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			all := Classify(&Observation{BootID: tc.bootID, Attempts: attempts}, host())
			got := all[len(all)-len(attempts):]
			for i, f := range got {
				if f.Name != attempts[i].Name || f.String() != tc.want[i] {
					t.Errorf("%s: %q, want %q", f.Name, f, tc.want[i])
				}
			}
		})
	}
}

func TestFacts(t *testing.T) {
	o := Observation{
		Kernel: "6.18.0", BootID: "aaaa", UID: 5, Processes: 2, Seccomp: 2, NoNewPrivs: true,
		Caps:     Caps{Effective: "00000000a80425fb", Bounding: "zz"},
		UIDMap:   []string{"0 100000 65536"},
		Writable: []Walk{{Root: "/proc", Files: 10, Writable: 3}, {Root: "/sys", Files: 20, Truncated: true}},
		Devices:  []Device{{Path: "/dev/null"}, {Path: "/dev/kvm", Err: "EPERM"}},
		Values:   Values{BTime: 1001, MemTotal: 99, Mounts: []string{"0:5 devtmpfs dev", "0:9 overlay overlay"}},
	}
	want := map[string]string{
		"kernel": "6.18.0", "boot id": "the host's", "processes visible": "2",
		"user id": "5, on the host 100005", "capabilities": "14 effective, ? bounding",
		"seccomp": "filter, no_new_privs", "writable /proc": "3 of 10 files",
		"writable /sys": "at least 0 of 20 files", "devices that open": "1 of 2",
		"boot time": "same as the host's", "memory total": "differs", "CPU model": "hidden",
		"mounts": "2, 1 of them the host's", "network": "its own: nothing", "abstract sockets": "0",
	}
	got := Classify(&o, host())
	if len(got) != len(want) {
		t.Errorf("%d rows, want %d", len(got), len(want))
	}
	for _, f := range got {
		if f.String() != want[f.Name] {
			t.Errorf("%s: %q, want %q", f.Name, f, want[f.Name])
		}
	}
}

func TestNetwork(t *testing.T) {
	two, many := []string{"eth0", "lo"}, make([]string, maxText)
	for _, tc := range []struct {
		id                string
		n                 Network
		network, abstract string
	}{
		{"aaaa", Network{"net:[1]", two, 3}, "the host's: eth0, lo", "3, the host's"},
		{"aaaa", Network{"net:[2]", two, 0}, "its own: eth0, lo", "0"},
		{"bbbb", Network{"net:[1]", two, 1}, "its own: eth0, lo", "1"},
		{"aaaa", Network{}, "its own: nothing", "0"},
		{"aaaa", Network{Interfaces: many}, "its own: 512 interfaces", "0"},
	} {
		o := Observation{BootID: tc.id, Network: tc.n}
		got := map[string]string{}
		for _, f := range Classify(&o, host()) {
			got[f.Name] = f.Detail
		}
		if got["network"] != tc.network || got["abstract sockets"] != tc.abstract {
			t.Errorf("%+v: %q, %q", tc.n, got["network"], got["abstract sockets"])
		}
	}
}

func TestUserID(t *testing.T) {
	for _, tc := range []struct {
		uid  int
		id   string
		maps []string
		want string
	}{
		{0, "aaaa", []string{"0 0 4294967295"}, "0, on the host 0"},
		{0, "bbbb", []string{"0 0 4294967295"}, "0, of its own kernel"},
		{7, "aaaa", []string{"0 1000 1", "1 200000 9"}, "7, on the host 200006"},
		{65534, "aaaa", []string{"0 1000 1"}, "65534, not mapped"},
		{0, "aaaa", []string{"junk", "a b c"}, "0, not mapped"},
	} {
		o := Observation{UID: tc.uid, BootID: tc.id, UIDMap: tc.maps}
		if got := userID(&o, OwnKernel(&o, host())); got != tc.want {
			t.Errorf("uid %d, maps %q: %q, want %q", tc.uid, tc.maps, got, tc.want)
		}
	}
}

func TestReadValues(t *testing.T) {
	proc := t.TempDir()
	files := map[string]string{
		"stat":           "cpu  1 2 3\nctxt 5\nbtime 1700000000\n",
		"meminfo":        "MemFree:  3 kB\nMemTotal:       2048 kB\n",
		"cpuinfo":        "processor\t: 0\nmodel name\t: Some CPU @ 2GHz\nmodel name\t: Other\n",
		"self/mountinfo": "22 1 0:20 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/x\nshort - x\n23 22 8:1 / /etc\\040x ro - ext4 /dev/sda1 rw\n",
		"self/net/dev":   "Inter-|   Receive\n face |bytes\n    lo: 1 2 3\n  eth0: 4 5\n",
		"self/net/unix":  "Num       RefCount Protocol Flags    Type St Inode Path\n0: 2 0 0 1 1 5 @/x\n1: 2 0 0 1 1 6 @/x\n2: 2 0 0 1 1 7 /run/y\n3: 2 0 0 1 1 8\n4: 2 0 0 1 1 9 @z\n",
	}
	for _, dir := range []string{"self/ns", "self/net"} {
		if err := os.MkdirAll(filepath.Join(proc, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("net:[42]", filepath.Join(proc, "self/ns/net")); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(proc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	n := ReadNetwork(proc)
	if n.Namespace != "net:[42]" || strings.Join(n.Interfaces, " ") != "eth0 lo" || n.Abstract != 2 {
		t.Errorf("network %+v", n)
	}
	v := ReadValues(proc)
	if v.BTime != 1700000000 || v.MemTotal != 2048 || v.CPUModel != "Some CPU @ 2GHz" {
		t.Errorf("got %+v", v)
	}
	if got := strings.Join(v.Mounts, "|"); got != "0:20 overlay overlay|8:1 ext4 /dev/sda1" {
		t.Errorf("mounts %q", got)
	}
	if v := ReadValues(filepath.Join(proc, "absent")); v.BTime != 0 || v.Mounts != nil {
		t.Errorf("nothing to read gave %+v", v)
	}
}

func TestReadHost(t *testing.T) {
	h, err := ReadHost()
	if err != nil {
		t.Fatal(err)
	}
	if len(h.BootID) != 36 || h.Kernel == "" || h.Values.BTime == 0 || len(h.Values.Mounts) == 0 {
		t.Errorf("got %+v", h)
	}
}

func TestParseRefuses(t *testing.T) {
	big, err := json.Marshal(Observation{Schema: Schema, Attempts: make([]Attempt, maxList+1)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		doc  []byte
		want string
	}{
		{"nothing", nil, "EOF"},
		{"no JSON", []byte("hello"), "invalid character"},
		{"another schema", []byte("{\"schema\":\"x\x1b[2J\"}"), "invalid character"},
		{"an unknown schema", []byte(`{"schema":"duplex.probe/99"}`), "duplex.probe/99"},
		{"too many entries", big, "too long"},
		{"too many bytes", make([]byte, MaxDocument+1), "at most"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse(tc.doc)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestParseCleansText(t *testing.T) {
	doc := `{"schema":"duplex.probe/1","kernel":"6.1\u001b[31m","attempts":[{"name":"a\nb","errno":"\u202eX"}],"uid_map":["` + strings.Repeat("x", 2*maxText) + `"]}`
	o, err := Parse([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	if o.Kernel != "6.1?[31m" || o.Attempts[0].Name != "a?b" || o.Attempts[0].Errno != "?X" || len(o.UIDMap[0]) != maxText {
		t.Errorf("got %+v", o)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"schema":"duplex.probe/1","uid":-1,"uid_map":["0 0 4294967295"],"values":{"btime":-9223372036854775808},"attempts":[{"name":"x","allowed":true}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := Parse(b)
		if err != nil {
			return
		}
		for _, row := range Classify(o, host()) {
			if s := row.Name + row.String(); strings.ContainsAny(s, "\x1b\n\r") || len(s) > 4*maxText {
				t.Errorf("unsafe text %q", s)
			}
		}
	})
}
