package build

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// symbol is what the Kconfig files say about an option.
type symbol struct {
	known    bool
	depends  []string // each "depends on" of its definitions
	selected []string // options that select it
}

// readSymbols reads what the tree's Kconfig files say about the options.
func readSymbols(tree string, list []dropped) (map[string]*symbol, error) {
	symbols := map[string]*symbol{}
	for _, d := range list {
		symbols[strings.TrimPrefix(d.option, "CONFIG_")] = &symbol{}
	}
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.HasPrefix(d.Name(), "Kconfig") {
			return err
		}
		if rel, err := filepath.Rel(tree, path); err == nil && otherArch(rel) {
			return nil
		}
		return readKconfig(path, symbols)
	})
	return symbols, err
}

// explain says why the tree's kernel did not take the options of list, "" when
// all that it did not take are those of other versions.
func explain(tree string, config settings, list []dropped, otherVersions map[string]bool) (string, error) {
	if len(list) == 0 {
		return "", nil
	}
	symbols, err := readSymbols(tree, list)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, d := range list {
		s := symbols[strings.TrimPrefix(d.option, "CONFIG_")]
		if s.known || !otherVersions[d.option] {
			fmt.Fprintf(&b, "\n  %s: wanted %s, got %s: %s", d.option, d.want, d.got, s.why(d, config))
		}
	}
	return b.String(), nil
}

// otherArch says whether rel lies under another architecture than x86.
func otherArch(rel string) bool {
	parts := strings.Split(filepath.ToSlash(rel), "/")
	return len(parts) > 2 && parts[0] == "arch" && parts[1] != "x86"
}

func (s *symbol) why(d dropped, config settings) string {
	if !s.known {
		return "this kernel has no such option"
	}
	var by []string
	for _, name := range s.selected {
		if config["CONFIG_"+name] == "y" {
			by = append(by, name)
		}
	}
	switch {
	case d.want == "n" && len(by) > 0:
		return "selected by " + strings.Join(slices.Compact(slices.Sorted(slices.Values(by))), ", ")
	case len(s.depends) > 0:
		return "depends on " + strings.Join(s.depends, " and ")
	}
	return "another option decides it (a choice, or one that cannot be set by hand)"
}

// readKconfig adds what the file says of symbols to them.
func readKconfig(path string, symbols map[string]*symbol) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var here string // the option whose definition this is
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		word, rest, _ := strings.Cut(strings.TrimSpace(sc.Text()), " ")
		rest = strings.TrimSpace(rest)
		switch word {
		case "config", "menuconfig":
			here = rest
			if s := symbols[here]; s != nil {
				s.known = true
			}
		case "depends":
			if s := symbols[here]; s != nil {
				s.depends = append(s.depends, strings.TrimSpace(strings.TrimPrefix(rest, "on")))
			}
		case "select":
			target, _, _ := strings.Cut(rest, " ")
			if s := symbols[target]; s != nil {
				s.selected = append(s.selected, here)
			}
		case "menu", "choice", "endmenu", "endchoice", "if", "endif", "source":
			here = ""
		}
	}
	return sc.Err()
}
