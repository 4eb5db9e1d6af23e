package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/duplex-run/duplex/image"
)

func someImages() []*image.Image {
	when := time.Date(2026, 11, 20, 23, 37, 5, 0, time.UTC)
	return []*image.Image{
		{
			Ref: "docker-archive:/home/someone/with/a/rather/long/path/to/debian.docker.tar", Digest: "sha256:" + strings.Repeat("d8", 32),
			Config: image.Config{Entrypoint: []string{"/entry point", "-x"}, Cmd: []string{"/bin/bash"}, Env: []string{"PATH=/bin", "ESC=\x1b[31m"},
				WorkingDir: "/srv", User: "web:staff", StopSignal: "SIGQUIT"},
			Imported: when, Inodes: 8751, Size: 253214720, DiskUsage: 182112256, EROFS: "/cache/images/d8/rootfs.erofs",
		},
		{Digest: "sha256:" + strings.Repeat("0b", 32), Damaged: true},
		{
			Ref: "builtin", Digest: "sha256:" + strings.Repeat("74", 32), Config: image.Config{Cmd: []string{"/bin/sh"}},
			Imported: when.Add(-time.Hour), Inodes: 102, Size: 6848512, DiskUsage: 6844416,
			EROFS: "/cache/images/74/rootfs.erofs", Tree: "/cache/images/74/tree",
		},
	}
}

func TestPrintImages(t *testing.T) {
	for name, print := range map[string]func(*bytes.Buffer) error{
		"image-ls":      func(b *bytes.Buffer) error { return printImages(b, someImages(), false, false) },
		"image-ls-json": func(b *bytes.Buffer) error { return printImages(b, someImages(), true, false) },
		"image-ls-q":    func(b *bytes.Buffer) error { return printImages(b, someImages(), false, true) },
		"image-inspect": func(b *bytes.Buffer) error { return printImage(b, someImages()[0]) },
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := print(&b); err != nil {
				t.Fatal(err)
			}
			checkGolden(t, name+".golden", b.Bytes())
			if strings.Contains(b.String(), "\x1b") {
				t.Error("an image's own bytes reach the terminal")
			}
			for line := range strings.SplitSeq(b.String(), "\n") {
				if name == "image-ls" && len([]rune(line)) > 80 {
					t.Errorf("%d columns: %s", len([]rune(line)), line)
				}
			}
		})
	}
	var empty bytes.Buffer
	if err := printImages(&empty, nil, true, false); err != nil || empty.String() != "[]\n" {
		t.Errorf("no images: %q, %v", empty.String(), err)
	}
}

// The subcommands, through the front door.
func TestImageCommands(t *testing.T) {
	t.Setenv("DUPLEX_CACHE", t.TempDir())
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	var digest string
	for _, step := range []struct {
		args   string
		status int
		out    string // a part of it
		err    string
	}{
		{"image", 125, "", "import"},
		{"image --help", 0, "prune", ""},
		{"image ls", 0, "DIGEST", ""},
		{"image ls extra", 125, "", "unexpected argument"},
		{"image import", 125, "", "want one image"},
		{"image import nonsense", 125, "", "docker-archive:FILE"},
		{"image inspect DIR", 125, "", "no such image"},
		{"image import DIR", 0, "sha256:", ""},
		{"image inspect DIR", 0, "Entrypoint:  none", ""},
		{"image inspect --json DIGEST", 0, `"inodes": 2`, ""},
		{"image rm", 125, "", "which image?"},
		{"image rm ffffffff DIGEST", 125, "sha256:", "no such image"},
		{"image inspect DIGEST", 125, "", "no such image"},
		{"image import --json DIR", 0, `"digest": "sha256:`, ""},
		{"image prune", 0, "", ""},
		{"image prune -a", 0, "sha256:", ""},
		{"image ls -q", 0, "", ""},
		{"image shrink", 125, "", "unknown command"},
	} {
		args := strings.Fields(strings.NewReplacer("DIR", "rootfs:"+dir, "DIGEST", digest).Replace("duplex " + step.args))
		var stdout, stderr bytes.Buffer
		status := Main(args, nil, &stdout, &stderr)
		if status != step.status || !strings.Contains(stdout.String(), step.out) || !strings.Contains(stderr.String(), step.err) ||
			(step.out == "") != (stdout.Len() == 0) {
			t.Errorf("%s: status %d, stdout %q, stderr %q", step.args, status, &stdout, &stderr)
		}
		if strings.HasPrefix(stdout.String(), "sha256:") {
			digest = strings.TrimSpace(stdout.String())
		}
	}
}
