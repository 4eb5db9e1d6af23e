package build

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/duplex-run/duplex/internal/lazyregexp"
)

// settings are values by option: CONFIG_NET to "y", CONFIG_NR_CPUS to "255",
// CONFIG_LOCALVERSION to `"-x"`. An option that is not set has "n".
type settings map[string]string

// parseFragment reads a fragment of kernel configuration: lines CONFIG_X=value,
// "# CONFIG_X is not set", comments, blank lines. Anything else is an error, as is
// an option that is named twice, or is to be a module: name says where.
func parseFragment(name, text string) (settings, error) {
	s, err := parseConfig(name, text)
	if err != nil {
		return nil, err
	}
	for _, option := range slices.Sorted(maps.Keys(s)) {
		if s[option] == "m" {
			return nil, fmt.Errorf("%s: %s=m: the kernel is built without modules; use y", name, option)
		}
	}
	return s, nil
}

// parseConfig is parseFragment for a whole configuration, which may have modules.
func parseConfig(name, text string) (settings, error) {
	out, n := settings{}, 0
	for line := range strings.Lines(text) {
		n++
		option, value, ok := parseLine(strings.TrimSpace(line))
		if !ok {
			return nil, fmt.Errorf("%s: line %d: want CONFIG_NAME=value or \"# CONFIG_NAME is not set\"", name, n)
		}
		if option == "" {
			continue
		}
		if _, twice := out[option]; twice {
			return nil, fmt.Errorf("%s: line %d: %s is there twice", name, n, option)
		}
		out[option] = value
	}
	return out, nil
}

// parseLine returns an empty option for a comment or blank line.
func parseLine(line string) (option, value string, ok bool) {
	if rest, comment := strings.CutPrefix(line, "#"); comment || line == "" {
		option, unset := strings.CutSuffix(strings.TrimSpace(rest), " is not set")
		if unset && isOption(option) {
			return option, "n", true
		}
		return "", "", true
	}
	option, value, ok = strings.Cut(line, "=")
	return option, value, ok && isOption(option) && isValue(value)
}

func isOption(s string) bool {
	name, ok := strings.CutPrefix(s, "CONFIG_")
	return ok && name != "" && strings.Trim(name, "_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == ""
}

// isValue takes y, m and n, decimal and hexadecimal numbers, and quoted strings.
func isValue(s string) bool {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return true
	}
	_, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		_, err = strconv.ParseUint(s, 0, 64)
	}
	return err == nil || s == "y" || s == "m" || s == "n"
}

// merge returns what later fragments make of earlier ones.
func merge(fragments ...settings) settings {
	out := settings{}
	for _, f := range fragments {
		maps.Copy(out, f)
	}
	return out
}

// String is the fragment again, sorted and without comments.
func (s settings) String() string {
	var b strings.Builder
	for _, option := range slices.Sorted(maps.Keys(s)) {
		if s[option] == "n" {
			fmt.Fprintf(&b, "# %s is not set\n", option)
		} else {
			fmt.Fprintf(&b, "%s=%s\n", option, s[option])
		}
	}
	return b.String()
}

// dropped is an option that the kernel did not take as it was given.
type dropped struct {
	option, want, got string
}

// ofVersions matches the comment above an option that some versions of Linux lack.
var ofVersions = lazyregexp.New(`^#.*\((until|since) [0-9]+\.[0-9]+\)$`)

// versioned returns the options of a fragment that such a comment is above.
func versioned(text string) []string {
	var out []string
	var before string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if option, _, _ := parseLine(line); option != "" && ofVersions().MatchString(before) {
			out = append(out, option)
		}
		before = line
	}
	return out
}

// missing compares what was asked for with the kernel's configuration, in which an
// option that cannot be set does not appear.
func missing(want, got settings) []dropped {
	var out []dropped
	for _, option := range slices.Sorted(maps.Keys(want)) {
		value, ok := got[option]
		if !ok {
			value = "n"
		}
		if value != want[option] {
			out = append(out, dropped{option, want[option], value})
		}
	}
	return out
}
