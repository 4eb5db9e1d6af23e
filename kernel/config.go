package kernel

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxConfig bounds the size of a configuration; Debian's has 120 to 280 KB.
const maxConfig = 4 << 20

// configuration is a kernel's build configuration: values by option, "CONFIG_ACPI" to
// "y". An option that is not set has the value "n".
type configuration map[string]string

// parseConfig reads a .config file. Lines of another shape are an error: what is
// not understood must not count as an option that is not set.
func parseConfig(data []byte) (configuration, error) {
	c := configuration{}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		option, value, ok := strings.Cut(line, "=")
		if strings.HasPrefix(line, "#") || line == "" {
			option, ok = strings.CutSuffix(strings.TrimPrefix(line, "# "), " is not set")
			value = "n"
			if !ok || !strings.HasPrefix(option, "CONFIG_") {
				continue // a comment
			}
		}
		if !ok || !isOption(option) {
			return nil, fmt.Errorf("line %d is not a line of a kernel configuration", n)
		}
		c[option] = value
	}
	if len(c) == 0 {
		return nil, errors.New("no option in it")
	}
	return c, nil
}

func isOption(s string) bool {
	name, ok := strings.CutPrefix(s, "CONFIG_")
	if !ok || name == "" {
		return false
	}
	for _, c := range name {
		if c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// readConfigFile reads the configuration that came with a kernel.
func readConfigFile(path string) (configuration, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := readAtMost(f, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c, err := parseConfig(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// IKCONFIG: a kernel built with CONFIG_IKCONFIG=y has its configuration, gzipped,
// between these marks (kernel/configs.c).
const (
	ikStart = "IKCFG_ST"
	ikEnd   = "IKCFG_ED"
)

// WantsSignatures says whether the kernel loads only signed modules
// (CONFIG_MODULE_SIG_FORCE). One whose configuration is not known does not.
func (k *Kernel) WantsSignatures() (bool, error) {
	if k.Config == "" {
		return false, nil
	}
	c, err := readConfigFile(k.Config)
	return c["CONFIG_MODULE_SIG_FORCE"] == "y", err
}

// embeddedConfig finds the IKCONFIG in the size bytes of the uncompressed kernel
// r; nil when there is none.
func embeddedConfig(r io.ReaderAt, size int64) (configuration, error) {
	start := int64(-1)
	err := scan(r, size, ikStart, 2, func(at int64, after []byte) bool {
		if string(after) == "\x1f\x8b" {
			start = at
		}
		return start >= 0
	})
	if err != nil || start < 0 {
		return nil, err
	}
	packed, err := io.ReadAll(io.NewSectionReader(r, start, min(maxConfig, size-start)))
	if err != nil {
		return nil, err
	}
	packed, _, ok := bytes.Cut(packed, []byte(ikEnd))
	if !ok {
		return nil, errors.New("embedded configuration: no end mark")
	}
	zr, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("embedded configuration: %w", err)
	}
	data, err := readAtMost(zr, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("embedded configuration: %w", err)
	}
	c, err := parseConfig(data)
	if err != nil {
		return nil, fmt.Errorf("embedded configuration: %w", err)
	}
	return c, nil
}
