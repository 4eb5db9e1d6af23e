package container

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/duplex-run/duplex/internal/testutil/netns"
)

// streamBytes are sent in each direction by BenchmarkNetwork, and rounds are its
// round trips.
const (
	streamBytes = 512 << 20
	rounds      = 5000
)

// workStream sends, receives and asks, at an address, and prints what it took.
func workStream(a []string) error {
	timed := func(what string, f func(net.Conn) error) error {
		c, err := net.Dial("tcp", a[0])
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		if _, err := io.WriteString(c, what[:1]); err != nil {
			return err
		}
		start := time.Now()
		err = f(c)
		fmt.Println(what, time.Since(start).Nanoseconds())
		return err
	}
	if err := timed("out", func(c net.Conn) error {
		if _, err := io.CopyN(c, zeros{}, streamBytes); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, 1)) // all of it has come
		return err
	}); err != nil {
		return err
	}
	if err := timed("in", func(c net.Conn) error { _, err := io.Copy(io.Discard, c); return err }); err != nil {
		return err
	}
	return timed("round", func(c net.Conn) error {
		b := make([]byte, 64)
		for range rounds {
			if _, err := c.Write(b); err != nil {
				return err
			}
			if _, err := io.ReadFull(c, b); err != nil {
				return err
			}
		}
		return nil
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// serveStream is the other end of workStream.
func serveStream(c net.Conn) {
	defer func() { _ = c.Close() }()
	what := make([]byte, 1)
	if _, err := io.ReadFull(c, what); err != nil {
		return
	}
	switch what[0] {
	case 'o':
		if _, err := io.CopyN(io.Discard, c, streamBytes); err == nil {
			_, _ = c.Write(what)
		}
	case 'i':
		_, _ = io.CopyN(c, zeros{}, streamBytes)
	default:
		_, _ = io.Copy(c, c)
	}
}

// BenchmarkNetwork measures TCP between a container and its host by each network,
// on a small host of its own. It needs root.
func BenchmarkNetwork(b *testing.B) {
	if !netns.Inside() {
		cmd := exec.Command("/proc/self/exe", "-test.run=-", "-test.bench=^BenchmarkNetwork$", "-test.benchtime=1x")
		cmd.Env = append(os.Environ(), "DUPLEX_RUNTIME="+b.TempDir())
		out, err := netns.Output(cmd)
		fmt.Printf("%s", out)
		must(b, err)
		return
	}
	l, err := net.Listen("tcp", netns.Outside+":0")
	must(b, err)
	defer func() { _ = l.Close() }()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveStream(c)
		}
	}()
	tree := newTree(b)
	for _, mode := range []NetworkMode{NetworkHost, NetworkUser, NetworkBridge} {
		b.Run(string(mode), func(b *testing.B) {
			for range b.N {
				for line := range strings.Lines(runOn(b, Network{Mode: mode}, newSpec(tree, "stream", l.Addr().String()))) {
					what, ns, _ := strings.Cut(strings.TrimSpace(line), " ")
					n, err := strconv.ParseFloat(ns, 64)
					must(b, err)
					if what == "round" {
						b.ReportMetric(n/rounds/1000, "us/round-trip")
					} else {
						b.ReportMetric(streamBytes/(n/1e9)/1e6, "MB/s-"+what)
					}
				}
			}
		})
	}
}
