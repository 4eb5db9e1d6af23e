package cli

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/microvm"
	"github.com/duplex-run/duplex/vmm"
)

func TestParseDisk(t *testing.T) {
	for _, c := range []struct {
		in   string
		want microvm.Disk
		err  string
	}{
		{"root.img", microvm.Disk{Path: "root.img"}, ""},
		{"/a/b.img,ro,direct,queues=4,bps=10m,iops=500,serial=root", microvm.Disk{
			Path: "/a/b.img", ReadOnly: true, Direct: true, Queues: 4, BytesPerSecond: 10 << 20, OpsPerSecond: 500, ID: "root"}, ""},
		{"", microvm.Disk{}, "empty"},
		{"x,rw", microvm.Disk{}, `unknown option "rw"`},
		{"x,queues=0", microvm.Disk{}, "1 to 32"},
		{"x,queues=33", microvm.Disk{}, "1 to 32"},
		{"x,bps=fast", microvm.Disk{}, "not a size"},
		{"x,iops=-1", microvm.Disk{}, "not a number"},
		{"x,serial=123456789012345678901", microvm.Disk{}, "20 bytes"},
	} {
		got, err := parseDisk(c.in)
		switch {
		case (err != nil) != (c.err != ""), err != nil && !strings.Contains(err.Error(), c.err):
			t.Errorf("%q: %v, want %q", c.in, err, c.err)
		case err == nil && got != c.want:
			t.Errorf("%q: %+v", c.in, got)
		}
	}
}

func TestParseNetAndShare(t *testing.T) {
	for _, c := range []struct{ in, tap, err string }{
		{"user", "", ""}, {"tap=tap0", "tap0", ""}, {"tap=tap0,mac=02:00:00:00:00:01,bps=1m,pps=10", "tap0", ""},
		{"tap=", "", "1 to 15"}, {"tap=a-name-too-long-for-linux", "", "1 to 15"}, {"bridge", "", "want tap=NAME or user"},
		{"user,mac=x", "", "address"}, {"user,x=1", "", `unknown option "x"`}, {"", "", "empty"},
	} {
		n, err := parseNet(c.in)
		if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) || err == nil && n.Tap != c.tap {
			t.Errorf("net %q: %+v, %v", c.in, n, err)
		}
	}
	for in, want := range map[string]microvm.Share{
		"/srv:data": {Dir: "/srv", Tag: "data"}, "/srv:data:ro": {Dir: "/srv", Tag: "data", ReadOnly: true},
		"/a:b:data": {Dir: "/a:b", Tag: "data"}, "data": {}, ":data": {}, "/srv:": {},
	} {
		if got, err := parseShare(in); (err != nil) != (want == microvm.Share{}) || err == nil && got != want {
			t.Errorf("share %q: %+v, %v", in, got, err)
		}
	}
}

func flagsOf(o *bootOptions) *pflag.FlagSet {
	fs := pflag.NewFlagSet("boot", pflag.ContinueOnError)
	o.register(fs)
	return fs
}

func TestConfig(t *testing.T) {
	var o bootOptions
	fs := flagsOf(&o)
	if err := fs.Parse([]string{"--memory=1g", "--disk=mine"}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.json")
	const file = `{"kernel": "k", "memory": "64m", "cpus": 1.5, "disk": ["a,ro", "b"], "share": "/srv:data", "balloon": false, "timeout": "3s"}`
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := readConfig(fs, path); err != nil {
		t.Fatal(err)
	}
	if o.kernel != "k" || o.memory != "1g" || o.cpus != 1.5 || o.balloon || o.timeout != 3*time.Second ||
		!reflect.DeepEqual(o.disks, []string{"mine"}) || !reflect.DeepEqual(o.shares, []string{"/srv:data"}) {
		t.Errorf("%+v", o)
	}
	for in, want := range map[string]string{
		`{"kernal": "k"}`: `unknown key "kernal"`, `{"config": "x"}`: "unknown key", `[]`: "not a JSON object", ``: "not a JSON object",
		`{} {}`: "goes on", `{"kernel": ["a"]}`: "one value", `{"cpus": "many"}`: "invalid", `{"kernel": {}}`: "want a string",
		`{"disk": [null]}`: "want a string",
	} {
		var o bootOptions
		if err := applyConfig(flagsOf(&o), []byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"kernel": "k", "disk": ["a,ro"], "cpus": 2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var o bootOptions
		fs := flagsOf(&o)
		if applyConfig(fs, data) == nil && o.config != "" {
			t.Error("a config file names another")
		}
	})
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		o    bootOptions
		h    microvm.Hardware
		want string
	}{
		{bootOptions{serial: "stdio"}, microvm.Hardware{}, " console=ttyS0 panic=-1"},
		{bootOptions{serial: "none"}, microvm.Hardware{Console: true}, " console=hvc0 panic=-1"},
		{bootOptions{serial: "stdio"}, microvm.Hardware{Disks: []microvm.Disk{{}}}, " console=ttyS0 panic=-1 root=/dev/vda rw"},
		{bootOptions{serial: "stdio"}, microvm.Hardware{Disks: []microvm.Disk{{ReadOnly: true}}}, " console=ttyS0 panic=-1 root=/dev/vda ro"},
		{bootOptions{serial: "stdio"}, microvm.Hardware{Initrd: "i", Disks: []microvm.Disk{{}}}, " console=ttyS0 panic=-1"},
		{bootOptions{cmdline: "quiet"}, microvm.Hardware{}, " quiet"},
	} {
		if got := c.o.commandLine(&c.h); got != vmm.MachineCmdline+c.want {
			t.Errorf("%+v: %q", c.o, got)
		}
	}
}

func TestEscape(t *testing.T) {
	for _, c := range []struct {
		in, want string
		quit     bool
	}{
		{"plain", "plain", false}, {"a\x01\x01b", "a\x01b", false}, {"a\x01bc", "a\x01bc", false},
		{"abc\x01xdef", "abc", true}, {"\x01X", "", true}, {"\x01\x01x", "\x01x", false},
	} {
		for name, in := range map[string]io.Reader{
			"whole": strings.NewReader(c.in), "bytes": iotest.OneByteReader(strings.NewReader(c.in)),
		} {
			quit := false
			got, err := io.ReadAll(&escape{in: in, quit: func() { quit = true }})
			if err != nil || string(got) != c.want || quit != c.quit {
				t.Errorf("%q by %s: %q, quit %v, %v", c.in, name, got, quit, err)
			}
		}
	}
}

func TestStatsLine(t *testing.T) {
	before := vmm.Stats{Exits: map[string]uint64{"io": 100}, Kicks: []uint64{5, 0}}
	now := vmm.Stats{Exits: map[string]uint64{"io": 300, "mmio": 50}, Kicks: []uint64{10, 20}, CPUTime: time.Second, Resident: 64 << 20}
	const want = "10.0s  CPU 50%  memory 64 MiB  exits/s 125 (io 100, mmio 25)  notifications/s 12"
	if got := statsLine(10*time.Second, 2*time.Second, before, now); got != want {
		t.Errorf("%q", got)
	}
}
