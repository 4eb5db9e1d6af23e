package build

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/kernel/configs"
)

func TestParseFragment(t *testing.T) {
	for text, want := range map[string]settings{
		"":                                  {},
		"# a comment\n\n  CONFIG_A=y  \r\n": {"CONFIG_A": "y"},
		"# CONFIG_A is not set\n":           {"CONFIG_A": "n"},
		"#CONFIG_A is not set":              {"CONFIG_A": "n"},
		"CONFIG_A=n\nCONFIG_B=0x1f\nCONFIG_C=-5\nCONFIG_D=\"a = \\\"b\\\" # c\"\n": {"CONFIG_A": "n", "CONFIG_B": "0x1f", "CONFIG_C": "-5", "CONFIG_D": `"a = \"b\" # c"`},
		"CONFIG_A=0xffffffff81000000": {"CONFIG_A": "0xffffffff81000000"},
		// errors
		"CONFIG_A":               nil,
		"A=y":                    nil,
		"CONFIG_=y":              nil,
		"CONFIG_A-B=y":           nil,
		"CONFIG_A=":              nil,
		"CONFIG_A=yes":           nil,
		"CONFIG_A=\"x":           nil,
		"CONFIG_A=y # why":       nil,
		"CONFIG_A=m":             nil,
		"CONFIG_A=y\nCONFIG_A=y": nil,
	} {
		got, err := parseFragment("f", text)
		if (err != nil) != (want == nil) || want != nil && !maps.Equal(got, want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "f: ") {
			t.Errorf("%q: %v does not say where", text, err)
		}
		if err == nil {
			if again, err := parseFragment("f", got.String()); err != nil || !maps.Equal(again, got) {
				t.Errorf("%q: written %q, read %v, %v", text, got, again, err)
			}
		}
	}
}

func FuzzParseFragment(f *testing.F) {
	f.Add("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x\"\nCONFIG_D=0x10\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseFragment("f", text)
		if err != nil {
			return
		}
		if again, err := parseFragment("f", got.String()); err != nil || !maps.Equal(again, got) {
			t.Errorf("written %q, read %v, %v", got, again, err)
		}
	})
}

func TestMergeAndMissing(t *testing.T) {
	want := merge(settings{"CONFIG_A": "y", "CONFIG_B": "n", "CONFIG_C": "8"}, settings{"CONFIG_A": "n", "CONFIG_D": "y"})
	got := missing(want, settings{"CONFIG_B": "y", "CONFIG_C": "8", "CONFIG_E": "y"})
	if len(got) != 2 || got[0] != (dropped{"CONFIG_B", "n", "y"}) || got[1] != (dropped{"CONFIG_D", "y", "n"}) {
		t.Errorf("got %v", got)
	}
}

// Each option of ours has one line before it that says why.
func TestEveryOptionHasAReason(t *testing.T) {
	for name, text := range map[string]string{"minimal.config": configs.Minimal(), "default.config": configs.Default()} {
		var before string
		options := 0
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if option, _, _ := parseLine(line); option != "" {
				options++
				if !strings.HasPrefix(before, "# ") || strings.HasPrefix(before, "# ---") || len(before) > 100 {
					t.Errorf("%s: %s has no reason", name, line)
				}
				line = ""
			}
			before = line
		}
		if options < 50 {
			t.Errorf("%s: only %d options found", name, options)
		}
	}
}

func TestKeyHoldsAllInputs(t *testing.T) {
	base := keyOf("source", "gcc 1", settings{"CONFIG_A": "y"})
	if base != keyOf("source", "gcc 1", settings{"CONFIG_A": "y"}) {
		t.Error("the same inputs give another key")
	}
	for name, key := range map[string]string{
		"source":    keyOf("source2", "gcc 1", settings{"CONFIG_A": "y"}),
		"toolchain": keyOf("source", "gcc 2", settings{"CONFIG_A": "y"}),
		"value":     keyOf("source", "gcc 1", settings{"CONFIG_A": "n"}),
		"option":    keyOf("source", "gcc 1", settings{"CONFIG_B": "y"}),
		"border":    keyOf("sourceg", "cc 1", settings{"CONFIG_A": "y"}),
	} {
		if key == base {
			t.Errorf("another %s gives the same key", name)
		}
	}
}

func TestHashTreeSeesWhatABuildSees(t *testing.T) {
	dir := t.TempDir()
	change := func(f func() error) string {
		t.Helper()
		if err := f(); err != nil {
			t.Fatal(err)
		}
		sum, err := hashTree(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	seen := map[string]string{}
	for _, c := range []struct {
		name string
		same bool
		f    func() error
	}{
		{"a file", false, func() error { return os.WriteFile(at("a"), []byte("x"), 0o600) }},
		{"its content", false, func() error { return os.WriteFile(at("a"), []byte("y"), 0o600) }},
		{"its executable bit", false, func() error { return os.Chmod(at("a"), 0o700) }},
		{"its name", false, func() error { return os.Rename(at("a"), at("b")) }},
		{"a link", false, func() error { return os.Symlink("b", at("c")) }},
		{".git", true, func() error { return os.MkdirAll(at(".git/objects"), 0o700) }},
	} {
		sum := change(c.f)
		if other, ok := seen[sum]; ok != c.same {
			t.Errorf("%s: as after %q: %v, want %v", c.name, other, ok, c.same)
		}
		seen[sum] = c.name
	}
}

func TestReasonOfAFailure(t *testing.T) {
	for output, want := range map[string]string{
		"  CC      a.o\na.c:1:1: error: x\nmake[1]: *** [a.o] Error 1\n  CC      lib/error.o\n": "a.c:1:1: error: x\nmake[1]: *** [a.o] Error 1",
		"  CC      a.o\nsomething else\n":    "CC      a.o\nsomething else",
		"as: out: No space left on device\n": "as: out: No space left on device",
		"":                                   "",
	} {
		if got := reason(output); got != want {
			t.Errorf("reason(%q) = %q, want %q", output, got, want)
		}
	}
}

func TestCompiledCountsMakesLines(t *testing.T) {
	for line, want := range map[string]bool{
		"  CC      mm/slab.o": true, "  LD [M]  x.ko": true, "  OBJCOPY arch/x86/boot/vmlinux.bin": true,
		"make[1]: Entering directory": false, "": false, "  warning: x": false, "CC x": false, "  CC": false,
	} {
		if got := compiled(line); got != want {
			t.Errorf("compiled(%q) = %v", line, got)
		}
	}
}
