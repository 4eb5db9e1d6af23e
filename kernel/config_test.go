package kernel

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestParseConfig(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want configuration // nil: an error
	}{
		"each kind": {"# Linux/x86\n\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=\"x=y\"\nCONFIG_E_2=0x10\n",
			configuration{"CONFIG_A": "y", "CONFIG_B": "m", "CONFIG_C": "n", "CONFIG_D": `"x=y"`, "CONFIG_E_2": "0x10"}},
		"crlf":          {"CONFIG_A=y\r\n", configuration{"CONFIG_A": "y"}},
		"empty":         {"", nil},
		"comments only": {"# nothing is not set\n", nil},
		"not a config":  {"root:x:0:0\n", nil},
		"bad name":      {"CONFIG_A B=y\n", nil},
		"no name":       {"CONFIG_=y\n", nil},
		"no value":      {"CONFIG_A\n", nil},
	} {
		got, err := parseConfig([]byte(c.in))
		if (err != nil) != (c.want == nil) || len(got) != len(c.want) {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, c.want)
			continue
		}
		for k, v := range c.want {
			if got[k] != v {
				t.Errorf("%s: %s is %q, want %q", name, k, got[k], v)
			}
		}
	}
}

func TestEmbeddedConfig(t *testing.T) {
	ik := func(body string) []byte {
		return slices.Concat([]byte(ikStart), gzipped(t, []byte(body)), []byte(ikEnd))
	}
	config := "CONFIG_64BIT=y\nCONFIG_EROFS_FS=m\n"
	for name, c := range map[string]struct {
		extra []byte
		ok    bool
	}{
		"whole":       {ik(config), true},
		"none":        {nil, true},
		"mark alone":  {[]byte("printk of IKCFG_ST in code"), true},
		"no end":      {bytes.TrimSuffix(ik(config), []byte(ikEnd)), false},
		"corrupt":     {bytes.Replace(ik(config), []byte{0x1f, 0x8b, 8}, []byte{0x1f, 0x8b, 9}, 1), false},
		"bomb":        {ik(strings.Repeat("#", maxConfig+1)), false},
		"not options": {ik("hello"), false},
	} {
		t.Run(name, func(t *testing.T) {
			img := smallELF(c.extra)
			got, err := embeddedConfig(bytes.NewReader(img), int64(len(img)))
			if (err == nil) != c.ok {
				t.Fatalf("got %v", err)
			}
			if name == "whole" && got["CONFIG_EROFS_FS"] != "m" {
				t.Errorf("got %v", got)
			}
			if name != "whole" && got != nil {
				t.Errorf("got %v, want none", got)
			}
		})
	}
}

// A kernel file without a module directory: options that are modules are missing.
func TestInspectNamesWhatIsMissing(t *testing.T) {
	t.Setenv("DUPLEX_CACHE", t.TempDir())
	var config strings.Builder
	for _, n := range vmNeeds {
		switch n.Option {
		case "CONFIG_ACPI": // left out
		case "CONFIG_TMPFS":
			config.WriteString("# CONFIG_TMPFS is not set\n")
		case "CONFIG_EROFS_FS":
			config.WriteString("CONFIG_EROFS_FS=m\n")
		case "CONFIG_KVM_GUEST": // optional
		default:
			config.WriteString(n.Option + "=y\n")
		}
	}
	img := smallELF(slices.Concat([]byte(ikStart), gzipped(t, []byte(config.String())), []byte(ikEnd)))
	k, err := Find(writeTemp(t, "vmlinux", img))
	if err != nil {
		t.Fatal(err)
	}
	info, err := Inspect(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"CONFIG_ACPI", "CONFIG_EROFS_FS", "CONFIG_TMPFS"}; !slices.Equal(info.Missing, want) {
		t.Errorf("missing %q, want %q", info.Missing, want)
	}
	if info.ConfigSource != "embedded" || info.Format != FormatVmlinux {
		t.Errorf("config %q, format %q", info.ConfigSource, info.Format)
	}
}

func TestFetchedKernelLacksNothing(t *testing.T) {
	info, err := Inspect(t.Context(), fetched(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Missing) > 0 || info.Problem != "" {
		t.Errorf("missing %q, problem %q", info.Missing, info.Problem)
	}
	for _, o := range slices.Concat(info.Options, info.LabOptions) {
		if !o.ok() {
			t.Errorf("%s is %s", o.Option, o.Value)
		}
	}
	if info.Vmlinux.PVHEntry == 0 || info.BzImage.Compression != "lz4" || !info.BzImage.Entry64 {
		t.Errorf("%+v %+v", info.Vmlinux, info.BzImage)
	}
}
