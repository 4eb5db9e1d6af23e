package proxy

import (
	"bytes"
	"testing"
)

func TestParseResolvers(t *testing.T) {
	for conf, want := range map[string]string{
		"": "[127.0.0.1:53]",
		"# nameserver 1.1.1.1\nsearch x\nnameserver 9.9.9.9\n":                                               "[9.9.9.9:53]",
		"nameserver 127.0.0.53\nnameserver ::1 # v6\nnameserver bad\nnameserver 1.1.1.1\nnameserver 8.8.8.8": "[127.0.0.53:53 [::1]:53 1.1.1.1:53]",
	} {
		var got []string
		for _, r := range parseResolvers([]byte(conf)) {
			got = append(got, r.String())
		}
		if s := "[" + string(bytes.Join(toBytes(got), []byte(" "))) + "]"; s != want {
			t.Errorf("%q: %s, want %s", conf, s, want)
		}
	}
}

func toBytes(list []string) (out [][]byte) {
	for _, s := range list {
		out = append(out, []byte(s))
	}
	return out
}
