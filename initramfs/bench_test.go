package initramfs

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/duplex-run/duplex/kernel"
)

// BenchmarkBuild is what a run pays for its initramfs, found and made.
func BenchmarkBuild(b *testing.B) {
	k := fetched(b)
	build := func(b *testing.B) {
		if _, _, err := Build(b.Context(), Options{Kernel: k, Set: MicroVM}); err != nil {
			b.Fatalf("this benchmark needs the embedded agent (make build): %v", err)
		}
	}
	b.Run("cached", func(b *testing.B) {
		b.Setenv("DUPLEX_CACHE", b.TempDir())
		build(b)
		for b.Loop() {
			build(b)
		}
	})
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			b.Setenv("DUPLEX_CACHE", b.TempDir())
			build(b)
		}
	})
}

// BenchmarkUnpack is what the guest's kernel pays to unpack the archive, by its
// compression. QEMU counts instructions, 2 ns each, so the figure is the same on
// every machine; it is read from the kernel's own log.
func BenchmarkUnpack(b *testing.B) {
	k := fetched(b)
	path, _, err := Build(b.Context(), Options{Kernel: k, Set: MicroVM})
	if err != nil {
		b.Fatalf("this benchmark needs the embedded agent (make build): %v", err)
	}
	plain, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		open func(io.Writer) (io.WriteCloser, error)
	}{
		{"none", nil},
		{"lz4", func(w io.Writer) (io.WriteCloser, error) {
			lw := lz4.NewWriter(w)
			return lw, lw.Apply(lz4.LegacyOption(true), lz4.CompressionLevelOption(lz4.Level9))
		}},
		{"zstd", func(w io.Writer) (io.WriteCloser, error) {
			return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
		}},
		{"gzip", func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, gzip.BestCompression) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			initrd := filepath.Join(b.TempDir(), "initrd")
			data := plain
			if c.open != nil {
				data = pack(b, plain, c.open)
			}
			if err := os.WriteFile(initrd, data, 0o600); err != nil {
				b.Fatal(err)
			}
			var ms float64
			for b.Loop() {
				ms = unpackTime(b, k, initrd)
			}
			b.ReportMetric(ms, "guest-ms")
			b.ReportMetric(float64(len(data)), "bytes")
		})
	}
}

func pack(b *testing.B, plain []byte, open func(io.Writer) (io.WriteCloser, error)) []byte {
	b.Helper()
	var out bytes.Buffer
	w, err := open(&out)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

var stamp = regexp.MustCompile(`^\[ *([0-9.]+)\] (Trying to unpack rootfs image|Freeing initrd memory)`)

// unpackTime boots k until it has unpacked initrd and returns the milliseconds
// of instruction time between the kernel's two messages about it.
func unpackTime(b *testing.B, k *kernel.Kernel, initrd string) float64 {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), "qemu-system-x86_64", "-M", "microvm,acpi=on", "-nodefaults", "-no-user-config",
		"-display", "none", "-no-reboot", "-serial", "stdio", "-cpu", "max", "-m", "256M", "-smp", "1",
		"-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off",
		"-kernel", k.Image, "-initrd", initrd,
		"-append", "console=ttyS0 initramfs_async=0 cryptomgr.notests panic=-1")
	console, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	var times []float64
	sc := bufio.NewScanner(console)
	for len(times) < 2 && sc.Scan() {
		if m := stamp.FindStringSubmatch(strings.TrimSpace(sc.Text())); m != nil {
			t, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				b.Fatal(err)
			}
			times = append(times, t)
		}
	}
	if len(times) < 2 {
		b.Fatalf("the kernel ended before it unpacked %s", initrd)
	}
	return 1000 * (times[1] - times[0])
}
