package proxy

import (
	"net/netip"
	"testing"
)

func TestParsePort(t *testing.T) {
	for s, want := range map[string]Port{
		"80":                   {Guest: 80, Proto: "tcp"},
		"8080:80":              {Host: 8080, Guest: 80, Proto: "tcp"},
		"8080:80/udp":          {Host: 8080, Guest: 80, Proto: "udp"},
		"127.0.0.1:8080:80":    {IP: netip.MustParseAddr("127.0.0.1"), Host: 8080, Guest: 80, Proto: "tcp"},
		"127.0.0.1::80":        {IP: netip.MustParseAddr("127.0.0.1"), Guest: 80, Proto: "tcp"},
		"[::1]:8080:80/tcp":    {IP: netip.MustParseAddr("::1"), Host: 8080, Guest: 80, Proto: "tcp"},
		"0.0.0.0:65535:1/tcp":  {IP: netip.MustParseAddr("0.0.0.0"), Host: 65535, Guest: 1, Proto: "tcp"},
		"":                     {},
		"0":                    {},
		"80:":                  {},
		"65536":                {},
		"70000:80":             {},
		"x:80":                 {},
		"80/sctp":              {},
		"host:8080:80":         {},
		"1.2.3.4:8080:80:90":   {},
		"-1:80":                {},
		"80/tcp/udp":           {},
		"127.0.0.1:8080:80/":   {IP: netip.MustParseAddr("127.0.0.1"), Host: 8080, Guest: 80, Proto: "tcp"},
		"[127.0.0.1]:8080:8.0": {},
	} {
		got, err := ParsePort(s)
		if got != want || (err != nil) != (want == Port{}) {
			t.Errorf("%q: %+v, %v; want %+v", s, got, err, want)
		}
	}
}

func FuzzParsePort(f *testing.F) {
	for _, s := range []string{"80", "8080:80/udp", "[::1]:1:2/tcp", "127.0.0.1::80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePort(s); err == nil && (p.Guest == 0 || p.Proto != "tcp" && p.Proto != "udp") {
			t.Errorf("%q is %+v", s, p)
		}
	})
}
