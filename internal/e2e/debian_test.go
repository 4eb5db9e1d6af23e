package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/duplex-run/duplex/internal/testutil/listing"
)

var (
	debianFlag  = flag.String("debian", "", "Debian image with the helper, imported by the host")
	listingFlag = flag.String("listing", "", "file with the listing of what umoci unpacks of it")
)

// debianImage is a Debian image that none of our code made, with the helper
// inserted, and the listing of what umoci unpacks of it.
type debianImage struct {
	ref, listing string
	archive      string // docker archive of the same without the helper; host only
}

// debian makes the image once a test process, on the host, as root.
var debian = sync.OnceValues(func() (debianImage, error) {
	if *debianFlag != "" {
		data, err := os.ReadFile(*listingFlag)
		return debianImage{ref: *debianFlag, listing: string(data)}, err
	}
	out, err := exec.Command("../../scripts/testimage").Output()
	if err != nil {
		return debianImage{}, fmt.Errorf("scripts/testimage: %w", err)
	}
	made := strings.TrimSpace(string(out))
	dir := filepath.Join(helperDir, "debian")
	layout, bundle := filepath.Join(dir, "oci"), filepath.Join(dir, "bundle")
	steps := [][]string{
		{"mkdir", "-p", dir},
		{"cp", "-a", filepath.Join(made, "debian.oci"), layout},
		{"umoci", "insert", "--image", layout + ":latest", filepath.Join(helperDir, "rootfs", "helper"), "/helper"},
		{"umoci", "unpack", "--image", layout + ":latest", bundle},
	}
	for _, s := range steps {
		if out, err := exec.Command(s[0], s[1:]...).CombinedOutput(); err != nil {
			return debianImage{}, fmt.Errorf("%s: %w\n%s", strings.Join(s, " "), err, out)
		}
	}
	listing, err := exec.Command(filepath.Join(helperDir, "rootfs", "helper"), "list", filepath.Join(bundle, "rootfs")).Output()
	if err != nil {
		return debianImage{}, fmt.Errorf("list what umoci unpacked: %w", err)
	}
	return debianImage{
		ref: "oci:" + layout + ":latest", listing: string(listing),
		archive: filepath.Join(made, "debian.docker.tar"),
	}, os.RemoveAll(bundle)
})

func needDebian(t *testing.T) debianImage {
	t.Helper()
	d, err := debian()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Modes, owners, sizes, links, devices, extended attributes and content are the
// same on both sides, and what umoci unpacks.
func TestDebianFilesAreUmocis(t *testing.T) {
	d := needDebian(t)
	if n := strings.Count(d.listing, "\n"); n < 3000 {
		t.Fatalf("umoci's listing has only %d lines", n)
	}
	each(t, func(t *testing.T, run []string) {
		if inLab() && run[1] == "--container" {
			return // it takes minutes there, and the host has done it
		}
		r := duplex(t, nil, concat(run, []string{d.ref, "/helper", "list", "/"})...)
		if r.status != 0 {
			t.Fatalf("status %d, %s", r.status, r.stderr)
		}
		if diff := listing.Diff(lines(d.listing), lines(r.stdout), 20); diff != "" {
			t.Errorf("umoci (-) and we (+) differ:\n%s", diff)
		}
	})
}

func lines(s string) []string { return strings.Split(strings.TrimSpace(s), "\n") }

// A real program: 10 MiB through a shell pipeline with perl, byte for byte.
func TestDebianPipeline(t *testing.T) {
	d := needDebian(t)
	data := make([]byte, 10<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(data)
	want := bytes.ReplaceAll(data, []byte("a"), []byte("b"))
	each(t, func(t *testing.T, run []string) {
		r := duplex(t, bytes.NewReader(data), concat(run, []string{"-i", d.ref, "sh", "-c", "cat | perl -pe 's/a/b/g' | cat"})...)
		if r.status != 0 || r.stdout != string(want) {
			t.Errorf("status %d, %d bytes of %d came back, %s", r.status, len(r.stdout), len(want), r.stderr)
		}
	})
}

func TestDockerArchive(t *testing.T) {
	if inLab() {
		return // the archive stays on the host: importing is not what the lab is for
	}
	d := needDebian(t)
	r := duplex(t, nil, "run", "--container", "docker-archive:"+d.archive, "perl", "-e", "print 6*7")
	if r.status != 0 || r.stdout != "42" {
		t.Errorf("status %d, stdout %q, %s", r.status, r.stdout, r.stderr)
	}
}
