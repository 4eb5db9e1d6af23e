package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/workload"
)

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}

func TestVolumes(t *testing.T) {
	tree := newTree(t)
	must(t, os.MkdirAll(filepath.Join(tree, "srv"), 0o755))
	must(t, os.WriteFile(filepath.Join(tree, "srv", "image"), []byte("of the image"), 0o644))
	must(t, os.Symlink("/srv", filepath.Join(tree, "link")))
	must(t, os.Symlink("../../../../../srv", filepath.Join(tree, "up")))
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, []byte("hello"), 0o644))
	must(t, os.Mkdir(filepath.Join(dir, "inner"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "inner", "file"), []byte("inner"), 0o644))
	volume := func(host, guest string, ro bool) workload.Volume {
		return workload.Volume{Host: host, Guest: guest, ReadOnly: ro}
	}
	for _, tt := range []struct {
		name    string
		volumes []workload.Volume
		argv    []string
		status  int
		want    string // in the output or the error
	}{
		{"read", []workload.Volume{volume(dir, "/new/place", false)}, []string{"cat", "/new/place/file"}, 0, "hello"},
		{"write", []workload.Volume{volume(dir, "/v", false)}, []string{"put", "/v/written", "by the workload"}, 0, ""},
		{"read-only", []workload.Volume{volume(dir, "/v", true)}, []string{"put", "/v/other", ""}, 98, "read-only file system"},
		{"over a directory of the image", []workload.Volume{volume(dir, "/srv", false)}, []string{"cat", "/srv/image"}, 98, "no such file"},
		{"through a link of the image", []workload.Volume{volume(dir, "/link/sub", false)}, []string{"cat", "/srv/sub/file"}, 0, "hello"},
		{"through a link that climbs", []workload.Volume{volume(dir, "/up/sub", false)}, []string{"cat", "/srv/sub/file"}, 0, "hello"},
		{"a file", []workload.Volume{volume(file, "/etc/one", false)}, []string{"cat", "/etc/one"}, 0, "hello"},
		{"a file, read-only", []workload.Volume{volume(file, "/etc/one", true)}, []string{"put", "/etc/one", ""}, 98, "read-only file system"},
		{"a file over a file", []workload.Volume{volume(file, "/srv/image", false)}, []string{"cat", "/srv/image"}, 0, "hello"},
		{"one in another", []workload.Volume{volume(dir, "/v", false), volume(filepath.Join(dir, "inner"), "/v/inner", true)},
			[]string{"put", "/v/inner/file", ""}, 98, "read-only file system"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := newSpec(tree, tt.argv...)
			spec.Volumes = tt.volumes
			r := runIt(t, spec)
			if r.exit.Status() != tt.status || !strings.Contains(r.out+r.err, tt.want) {
				t.Errorf("%v, %q %q; want %d, %q", r.exit, r.out, r.err, tt.status, tt.want)
			}
		})
	}
	if got := content(t, filepath.Join(dir, "written")); got != "by the workload" {
		t.Errorf("written %q", got)
	}
	if got := content(t, file); got != "hello" {
		t.Errorf("the file is now %q", got)
	}
	if entries, err := os.ReadDir(filepath.Join(tree, "srv")); err != nil || len(entries) != 1 {
		t.Errorf("the image's /srv has %v now, %v", entries, err)
	}
}

// What cannot be mounted is duplex's error, and says why.
func TestVolumesRefused(t *testing.T) {
	tree := newTree(t)
	must(t, os.Symlink("/no/where", filepath.Join(tree, "dangling")))
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o644))
	for guest, tt := range map[string]struct{ host, want string }{
		"/dangling/sub": {dir, "leads nowhere"},
		"/etc/passwd":   {dir, "a directory cannot be mounted on a file"},
		"/etc":          {file, "a file cannot be mounted on a directory"},
		"/v":            {filepath.Join(dir, "gone"), "no such file"},
	} {
		spec := newSpec(tree, "exit", "0")
		spec.Volumes = []workload.Volume{{Host: tt.host, Guest: guest}}
		if r, err := tryRun(t, spec, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want %q", guest, r.exit, err, tt.want)
		}
	}
}
