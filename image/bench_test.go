package image_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/image"
)

// BenchmarkImport imports an image of 64 MB in 2,000 files, compressed as a
// registry would.
func BenchmarkImport(b *testing.B) {
	b.Setenv("DUPLEX_CACHE", b.TempDir())
	var members []member
	for i := range 2000 {
		members = append(members, text(fmt.Sprintf("dir%d/file%d", i%40, i), strings.Repeat(fmt.Sprintf("line %d of some text\n", i), 1500)))
	}
	p := tarOf(b, members...)
	layers := blob{gzipped(b, p), p}
	for name, ref := range map[string]string{"oci": ociLayout(b, layers), "docker-archive": dockerArchive(b, plain(p))} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				img, err := image.Resolve(b.Context(), ref, image.Options{})
				if err != nil {
					b.Fatal(err)
				}
				if err := errors.Join(img.Close(), image.Remove(img)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkResolve is what every run pays for an image that was imported.
func BenchmarkResolve(b *testing.B) {
	b.Setenv("DUPLEX_CACHE", b.TempDir())
	dir := b.TempDir()
	for i := range 1000 {
		if err := os.WriteFile(fmt.Sprintf("%s/file%d", dir, i), []byte("x"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	archive := dockerArchive(b, plain(tarOf(b, text("etc/passwd", "app:x:1:1::/:\n"))))
	for name, ref := range map[string]string{"docker-archive": archive, "rootfs-1000-files": "rootfs:" + dir, "builtin": "builtin"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				img, err := image.Resolve(b.Context(), ref, image.Options{})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := img.User("0"); err != nil {
					b.Fatal(err)
				}
				if err := img.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
