package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/kernel"
)

var updateGolden = flag.Bool("update", false, "rewrite the golden files")

func checkGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *updateGolden {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s (-update rewrites it):\n%s", path, got)
	}
}

func kernelInfo() *kernel.Info {
	need := func(option, value string, optional bool) kernel.Option {
		return kernel.Option{Need: kernel.Need{Option: option, Optional: optional, Why: "a reason to need it"}, Value: value}
	}
	return &kernel.Info{
		Kernel: kernel.Kernel{
			Name: "6.1.0-56-cloud-amd64_6.1.192-2", Release: "6.1.0-56-cloud-amd64",
			Image: "/cache/vmlinuz", Bytes: 14186432, Fetched: time.Date(2026, 11, 20, 23, 37, 0, 0, time.UTC),
			ModulesDir: "/cache/modules",
		},
		Format:       kernel.FormatBzImage,
		Version:      "6.1.0-56-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP",
		BzImage:      &kernel.BzImageInfo{Protocol: "2.15", Compression: "lz4", Entry64: true},
		Vmlinux:      &kernel.VmlinuxInfo{Path: "/cache/vmlinux/51.elf", Bytes: 53243444, Entry: 0x1000000, PVHEntry: 0x1000850},
		ConfigSource: "/cache/config",
		Options: []kernel.Option{
			need("CONFIG_ACPI", kernel.BuiltIn, false),
			need("CONFIG_EROFS_FS", kernel.AsModule, false),
			need("CONFIG_SERIAL_8250_CONSOLE", kernel.NotSet, true),
			need("CONFIG_TMPFS", kernel.NotSet, false),
			need("CONFIG_VIRTIO_BLK", kernel.NoModule, false),
		},
		LabOptions: []kernel.Option{need("CONFIG_TUN", kernel.AsModule, true)},
		Missing:    []string{"CONFIG_TMPFS", "CONFIG_VIRTIO_BLK"},
	}
}

func TestPrintKernel(t *testing.T) {
	var out bytes.Buffer
	if err := printKernel(&out, kernelInfo()); err != nil {
		t.Fatal(err)
	}
	checkGolden(t, "kernel-inspect.golden", out.Bytes())
}

func TestPrintKernels(t *testing.T) {
	long := kernelInfo().Kernel
	long.Name = "6.12.100+bpo-cloud-amd64_6.12.100-1~bpo12+1"
	list := []*kernel.Kernel{&long}
	for _, name := range []string{
		kernelInfo().Name, "6.1.0-55-cloud-amd64_6.1.192-1", "duplex-6.12.117_b6f5a9bd1a7c",
		"minimal-6.1.192_0123456789ab", "minimal-6.12.117_373993b965ad", "minimal-6.12.117_373993b965ae",
	} {
		k := kernelInfo().Kernel
		k.Name, k.Built = name, name[0] != '6'
		k.Fetched = k.Fetched.AddDate(0, 0, len(list))
		list = append(list, &k)
	}
	var out bytes.Buffer
	if err := printKernels(&out, list); err != nil {
		t.Fatal(err)
	}
	checkGolden(t, "kernel-ls.golden", out.Bytes())
	for line := range strings.Lines(out.String()) {
		if len(line) > 81 {
			t.Errorf("wider than 80 columns: %q", line)
		}
	}
}

func TestKernelCommands(t *testing.T) {
	t.Setenv("DUPLEX_CACHE", t.TempDir())
	for _, c := range []struct {
		args        string
		status      int
		out, errOut string // substrings
	}{
		{"kernel", 125, "", "Usage: duplex kernel COMMAND"},
		{"kernel --help", 0, "inspect", ""},
		{"kernel nope", 125, "", `unknown command "kernel nope"`},
		{"kernel ls", 0, "NAME", ""},
		{"kernel ls --json", 0, "[]", ""},
		{"kernel ls extra", 125, "", "unexpected argument"},
		{"kernel ls --help", 0, "Usage: duplex kernel ls", ""},
		{"kernel fetch extra", 125, "", "unexpected argument"},
		{"kernel build --help", 0, "--minimal", ""},
		{"kernel build extra", 125, "", "unexpected argument"},
		{"kernel build --jobs=-1", 125, "", "negative"},
		{"kernel build --config /nonexistent", 125, "", "/nonexistent"},
		{"kernel rm", 125, "", "which kernel?"},
		{"kernel rm no-such", 125, "", "duplex kernel ls"},
		{"kernel inspect", 125, "", "duplex kernel fetch"},
		{"kernel inspect no-such", 125, "", "duplex kernel ls"},
		{"kernel inspect a b", 125, "", "unexpected argument"},
		{"kernel inspect /proc/self/exe", 125, "", "no Linux kernel"},
	} {
		var out, errOut bytes.Buffer
		status := Main(strings.Fields("duplex "+c.args), nil, &out, &errOut)
		if status != c.status || !strings.Contains(out.String(), c.out) || !strings.Contains(errOut.String(), c.errOut) {
			t.Errorf("%s: status %d\nout: %s\nerr: %s", c.args, status, &out, &errOut)
		}
	}
}

// Kernels are removed by their whole names, the default only by force.
func TestKernelRm(t *testing.T) {
	t.Setenv("DUPLEX_CACHE", t.TempDir())
	for name, built := range map[string]bool{"6.1.0-9-cloud_6.1.1": false, "6.1.0-10-cloud_6.1.2": false, "minimal-6.12.1_0123": true} {
		dir := filepath.Join(os.Getenv("DUPLEX_CACHE"), "kernels", name)
		image := map[bool]string{true: "vmlinux", false: "vmlinuz"}[built]
		err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, image), nil, 0o600),
			os.WriteFile(filepath.Join(dir, "kernel.json"), fmt.Appendf(nil, `{"release": %q, "built": %v}`, name, built), 0o600))
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args        string
		status      int
		out, errOut string
	}{
		{"rm minimal", 125, "", "give the whole name"},
		{"rm 6.1.0-10-cloud_6.1.2", 125, "", "it is the default"},
		{"rm minimal-6.12.1_0123 gone 6.1.0-9-cloud_6.1.1", 125, "minimal-6.12.1_0123\n6.1.0-9-cloud_6.1.1\n", "remove the kernel gone: "},
		{"ls -q", 0, "6.1.0-10-cloud_6.1.2\n", ""},
		{"rm --force --json 6.1.0-10-cloud_6.1.2", 0, "[\n  \"6.1.0-10-cloud_6.1.2\"\n]\n", ""},
		{"ls -q", 0, "", ""},
	} {
		var out, errOut bytes.Buffer
		status := Main(strings.Fields("duplex kernel "+c.args), nil, &out, &errOut)
		if status != c.status || out.String() != c.out || !strings.Contains(errOut.String(), c.errOut) {
			t.Errorf("%s: status %d, %q, %q", c.args, status, &out, &errOut)
		}
	}
}

func TestKernelJSONHasTheDocumentedFields(t *testing.T) {
	var out bytes.Buffer
	if err := cmdline.PrintJSON(&out, kernelInfo()); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"name", "release", "image", "bytes", "format", "version", "bzimage", "vmlinux", "config_source", "options", "missing"} {
		if _, ok := got[field]; !ok {
			t.Errorf("no %q in %s", field, &out)
		}
	}
}
