package image_test

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/duplex-run/duplex/image"
	"github.com/duplex-run/duplex/internal/workload"
)

func testContext() (context.Context, func()) {
	return signal.NotifyContext(context.Background(), syscall.SIGTERM)
}

// Users as docker resolves them, from the image's own files.
func TestUser(t *testing.T) {
	newStore(t)
	img := resolve(t, ociLayout(t, plain(tarOf(t,
		text("real/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:w:/var/www:/bin/false\nbroken\n:::\n9:x:1:1::/nine:\nunchanged:x:4294967295:1::/:\nwrapped:x:-1:1::/:\n"),
		member{name: "etc/passwd", link: "../real/passwd"},
		text("etc/group", "root:x:0:\nweb:x:44:\nstaff:x:50:root,web\n"),
	))), image.Options{})
	for spec, want := range map[string]string{
		"root":      "{0 0 [50] /root}",
		"0":         "{0 0 [50] /root}",
		"web":       "{33 44 [50] /var/www}",
		"web:staff": "{33 50 [] /var/www}",
		"33":        "{33 44 [50] /var/www}",
		"1000":      "{1000 0 [] /}",
		"1000:1001": "{1000 1001 [] /}",
		"1000:web":  "{1000 44 [] /}",
	} {
		got, err := img.User(spec)
		if s := fmt.Sprint(got); err != nil || s != want {
			t.Errorf("%s: %s, %v; want %s", spec, s, err, want)
		}
	}
	for groups, want := range map[string]string{
		"staff":     "{33 44 [50] /var/www}",
		"7 staff 7": "{33 44 [50 7] /var/www}",
	} {
		got, err := img.User("web", strings.Fields(groups)...)
		if s := fmt.Sprint(got); err != nil || s != want {
			t.Errorf("groups %s: %s, %v; want %s", groups, s, err, want)
		}
	}
	for _, group := range []string{"nogroup", "-1", "4294967295", ""} {
		_, err := img.User("web", group)
		var shown *workload.Error
		if !errors.As(err, &shown) || shown.Remedy == "" {
			t.Errorf("group %q: %v", group, err)
		}
	}
	for _, spec := range []string{"nobody", "web:nogroup", "unchanged", "wrapped", "-1", "4294967296", "a:b:c"} {
		_, err := img.User(spec)
		var shown *workload.Error
		if !errors.As(err, &shown) || shown.Remedy == "" {
			t.Errorf("%s: %v", spec, err)
		}
	}
}

// Account files that are no plain files, or absurdly big, do no harm.
func TestUserHostileFiles(t *testing.T) {
	newStore(t)
	for name, members := range map[string][]member{
		"none":           {text("a", "")},
		"host link":      {{name: "etc/passwd", link: "/../../../../etc/passwd"}, text("etc/x", "")},
		"link loop":      {{name: "etc/passwd", link: "passwd"}},
		"long line":      {text("etc/passwd", strings.Repeat("x", 1<<20))},
		"directory":      {text("etc/passwd/x", ""), text("etc/group/x", "")},
		"etc is a file":  {text("etc", "root:x:0:0")},
		"etc is a cycle": {{name: "etc", link: "etc"}},
	} {
		t.Run(name, func(t *testing.T) {
			img := resolve(t, ociLayout(t, plain(tarOf(t, members...))), image.Options{})
			got, err := img.User("7:8")
			if name != "long line" && (err != nil || got.UID != 7 || got.GID != 8) {
				t.Errorf("numbers: %+v, %v", got, err)
			}
			if got, err := img.User("root"); err == nil {
				t.Errorf("root is %+v", got)
			}
		})
	}
	big := resolve(t, ociLayout(t, plain(tarOf(t, text("etc/passwd", strings.Repeat("a:x:1:1::/:\n", 1<<19))))), image.Options{})
	if _, err := big.User("a"); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("passwd of 6 MiB: %v", err)
	}
}
