package image_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/image"
	"github.com/duplex-run/duplex/internal/testutil/listing"
)

// testImage returns the directory of a Debian image made by other tools.
func testImage(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mmdebstrap, umoci and mounting EROFS do")
	}
	cmd := exec.Command("../scripts/testimage")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("testimage: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// A Debian image imported from either format, mounted by the kernel or unpacked
// as a tree, is what umoci unpacks: every mode, owner, size, time, link, hard
// link, device, xattr and byte.
func TestDebianEqualsUmoci(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a Debian image from the network")
	}
	dir := testImage(t)
	bundle := filepath.Join(t.TempDir(), "bundle")
	out, err := exec.Command("umoci", "unpack", "--image", dir+"/debian.oci:latest", bundle).CombinedOutput()
	if err != nil {
		t.Fatalf("umoci: %v\n%s", err, out)
	}
	want, err := listing.Of(filepath.Join(bundle, "rootfs"), listing.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(want) < 5000 {
		t.Fatalf("umoci unpacked only %d entries", len(want))
	}
	var digest string
	for _, ref := range []string{
		"oci:" + dir + "/debian.oci:latest", "docker-archive:" + dir + "/debian.docker.tar",
	} {
		t.Run(strings.SplitN(ref, ":", 2)[0], func(t *testing.T) {
			newStore(t)
			img := resolve(t, ref, image.Options{NeedTree: true})
			at := t.TempDir()
			err := listing.Mounted(img.EROFS, at, func() error { return compare(t, "mounted", want, at) })
			if err != nil {
				t.Fatal(err)
			}
			if err := compare(t, "tree", want, img.Tree); err != nil {
				t.Fatal(err)
			}
			if got := img.Config; len(got.Cmd) != 1 || got.Cmd[0] != "/bin/bash" || got.WorkingDir != "/srv" {
				t.Errorf("configuration: %+v", got)
			}
			if digest == "" {
				digest = img.Digest
			}
			if img.Digest != digest {
				t.Errorf("digest %s, from another format %s", img.Digest, digest)
			}
		})
	}
}

func compare(t *testing.T, what string, want []string, dir string) error {
	t.Helper()
	got, err := listing.Of(dir, listing.Options{})
	if err != nil {
		return err
	}
	if d := listing.Diff(want, got, 20); d != "" {
		t.Errorf("%s differs from umoci's:\n%s", what, d)
	}
	return nil
}
