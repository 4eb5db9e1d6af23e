package container

import "testing"

func TestParseRange(t *testing.T) {
	for line, want := range map[string]struct {
		name string
		r    idRange
		ok   bool
	}{
		"u:100000:65536":        {"u", idRange{100000, 65536}, true},
		" 1000:1:1\n":           {"1000", idRange{1, 1}, true},
		"u:4294967295:1":        {"u", idRange{4294967295, 1}, true},
		"u:4294967295:2":        {},
		"u:0:4294967296":        {},
		"u:1:0":                 {},
		"u:-1:5":                {},
		"u:1":                   {},
		"u:1:2:3":               {},
		":1:2":                  {},
		"":                      {},
		"# comment":             {},
		"u:0x10:1":              {},
		"u:99999999999999999:1": {},
	} {
		name, r, ok := parseRange(line)
		if name != want.name || r != want.r || ok != want.ok {
			t.Errorf("%q: %q %+v %v, want %+v", line, name, r, ok, want)
		}
	}
}
