package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// moduleELF is an ELF64 object with a .modinfo section of these entries.
func moduleELF(entries ...string) []byte {
	var modinfo []byte
	for _, e := range entries {
		modinfo = append(append(modinfo, e...), 0)
	}
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	le := binary.LittleEndian
	section := func(name int, kind elf.SectionType, off, size int) []byte {
		s := make([]byte, 64)
		le.PutUint32(s, uint32(name))
		le.PutUint32(s[4:], uint32(kind))
		le.PutUint64(s[24:], uint64(off))
		le.PutUint64(s[32:], uint64(size))
		return s
	}
	h := make([]byte, 64)
	copy(h, elf.ELFMAG+"\x02\x01\x01")
	le.PutUint16(h[16:], uint16(elf.ET_REL))
	le.PutUint16(h[18:], uint16(elf.EM_X86_64))
	le.PutUint32(h[20:], 1)
	le.PutUint64(h[40:], uint64(64+len(modinfo)+len(names))) // section headers
	le.PutUint16(h[52:], 64)
	le.PutUint16(h[58:], 64)
	le.PutUint16(h[60:], 3)
	le.PutUint16(h[62:], 2)
	return slices.Concat(h, modinfo, names,
		make([]byte, 64),
		section(1, elf.SHT_PROGBITS, 64, len(modinfo)),
		section(10, elf.SHT_STRTAB, 64+len(modinfo), len(names)))
}

// modulesDir makes a module directory of these files.
func modulesDir(t *testing.T, files map[string][]byte) *Kernel {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &Kernel{Name: "test", ModulesDir: dir}
}

func TestModuleOrder(t *testing.T) {
	var zst bytes.Buffer
	zw, err := zstd.NewWriter(&zst)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := zw.Write(moduleELF("depends=")); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	k := modulesDir(t, map[string][]byte{
		"modules.builtin":         []byte("kernel/fs/ext4/ext4.ko\nkernel/crypto/crc32c_generic.ko\n"),
		"modules.builtin.modinfo": []byte("crc32c_generic.alias=crypto-crc32c\x00crc32c_generic.alias=crc32c\x00"),
		"kernel/a.ko":             moduleELF("depends=b-dash,c", "license=GPL"),
		"kernel/sub/b_dash.ko":    moduleELF("depends=c", "softdep=pre: crc32c soft-alias post: never"),
		"kernel/c.ko":             moduleELF("depends="),
		"kernel/never.ko":         moduleELF("depends="),
		"kernel/crc32c-intel.ko":  moduleELF("depends=", "alias=crc32c"),
		"kernel/soft2.ko.zst":     zst.Bytes(),
		"kernel/soft1.ko.gz":      gzipped(t, moduleELF("depends=soft2", "alias=soft_alias")),
		"kernel/loop1.ko":         moduleELF("depends=loop2"),
		"kernel/loop2.ko":         moduleELF("depends=loop1"),
		"kernel/lonely.ko":        moduleELF("depends=gone", "softdep=pre: also-gone"),
		"kernel/notes.txt":        []byte("not a module"),
	})
	for name, c := range map[string]struct {
		ask     []string
		want    string
		missing string
	}{
		"order":     {[]string{"a"}, "soft2 soft1 c b_dash a", ""},
		"dash":      {[]string{"b-dash", "b_dash"}, "soft2 soft1 c b_dash", ""},
		"built in":  {[]string{"ext4", "c"}, "c", ""},
		"cycle":     {[]string{"loop1"}, "loop2 loop1", ""},
		"nothing":   {nil, "", ""},
		"missing":   {[]string{"lonely", "c", "absent"}, "", "gone absent"},
		"traversal": {[]string{"../../etc/passwd"}, "", "../../etc/passwd"},
	} {
		t.Run(name, func(t *testing.T) {
			order, err := k.Modules(c.ask...)
			var missing *MissingError
			if errors.As(err, &missing) {
				if got := strings.Join(missing.Modules, " "); got != c.missing {
					t.Errorf("missing %q, want %q", got, c.missing)
				}
				return
			}
			if err != nil || c.missing != "" {
				t.Fatalf("got %v, want missing %q", err, c.missing)
			}
			var names []string
			for _, m := range order {
				names = append(names, m.Name)
				if data, err := m.Read(); err != nil || !bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
					t.Errorf("read %s: %v", m.Name, err)
				}
			}
			if got := strings.Join(names, " "); got != c.want {
				t.Errorf("order %q, want %q", got, c.want)
			}
		})
	}
}

func TestBrokenModulesAreErrors(t *testing.T) {
	whole := moduleELF("depends=")
	for name, data := range map[string][]byte{
		"empty":       nil,
		"text":        []byte("hello"),
		"no modinfo":  bytes.Replace(whole, []byte(".modinfo"), []byte(".notinfo"), 1),
		"cut":         whole[:len(whole)-70],
		"cut gzip":    gzipped(t, whole)[:30],
		"gzip bomb":   gzipped(t, make([]byte, maxModule+1)),
		"gzip inside": gzipped(t, []byte("hello")),
	} {
		k := modulesDir(t, map[string][]byte{"modules.builtin": nil, "kernel/m.ko": data})
		if order, err := k.Modules("m"); err == nil {
			t.Errorf("%s: loaded as %v", name, order)
		}
	}
	k := modulesDir(t, map[string][]byte{"kernel/m.ko": whole})
	if _, err := k.Modules("m"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without modules.builtin: %v", err)
	}
}

func TestModulesIDFollowsTheLists(t *testing.T) {
	k := modulesDir(t, map[string][]byte{"modules.builtin": nil, "modules.order": []byte("a")})
	before, err := k.ModulesID()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(k.ModulesDir, "modules.order"), []byte("ab"), 0o600); err != nil {
		t.Fatal(err)
	}
	after, err := k.ModulesID()
	if err != nil || after == before {
		t.Errorf("ID %q stayed, %v", after, err)
	}
}
