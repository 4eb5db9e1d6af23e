package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// member is a file of an archive.
type member struct {
	name    string
	content []byte
	link    string // a symbolic link, if set
}

func text(name, content string) member { return member{name: name, content: []byte(content)} }

func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(m.content))}
		if m.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, m.link
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipped(t testing.TB, p []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zstded(t testing.TB, p []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(p, nil)
}

func sum(p []byte) string {
	s := sha256.Sum256(p)
	return hex.EncodeToString(s[:])
}

// blob is a layer as it is stored and the tar that it should be.
type blob struct{ stored, plain []byte }

func plain(p []byte) blob { return blob{p, p} }

// config returns an image configuration that names the layers.
func config(t testing.TB, layers ...blob) []byte {
	t.Helper()
	ids := []string{}
	for _, l := range layers {
		ids = append(ids, "sha256:"+sum(l.plain))
	}
	return encode(t, map[string]any{
		"os": "linux", "architecture": "amd64",
		"config": map[string]any{"Cmd": []string{"/cmd"}, "Env": []string{"A=b"}, "User": "app", "StopSignal": "SIGQUIT"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids},
	})
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// dockerMembers are the members of a docker archive.
func dockerMembers(t testing.TB, config []byte, layers ...blob) []member {
	t.Helper()
	members := []member{{name: sum(config) + ".json", content: config}}
	names := []string{}
	for i, l := range layers {
		name := fmt.Sprintf("layer%d/layer.tar", i)
		names = append(names, name)
		members = append(members, member{name: name, content: l.stored})
	}
	manifest := encode(t, []any{map[string]any{"Config": sum(config) + ".json", "Layers": names, "RepoTags": nil}})
	return append(members, member{name: "manifest.json", content: manifest})
}

func writeFile(t testing.TB, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func dockerArchive(t testing.TB, layers ...blob) string {
	t.Helper()
	return "docker-archive:" + writeFile(t, tarOf(t, dockerMembers(t, config(t, layers...), layers...)...))
}

// layout is an OCI image layout being made.
type layout struct {
	t   testing.TB
	dir string
}

func newLayout(t testing.TB) *layout {
	t.Helper()
	l := &layout{t, t.TempDir()}
	if err := os.MkdirAll(filepath.Join(l.dir, "blobs/sha256"), 0o700); err != nil {
		t.Fatal(err)
	}
	l.write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return l
}

func (l *layout) write(name string, content []byte) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.dir, name), content, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// blob stores content and returns its descriptor.
func (l *layout) blob(mediaType string, content []byte) map[string]any {
	l.t.Helper()
	l.write("blobs/sha256/"+sum(content), content)
	return map[string]any{"mediaType": mediaType, "digest": "sha256:" + sum(content), "size": len(content)}
}

const (
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

// image stores an image and returns the descriptor of its manifest.
func (l *layout) image(config []byte, layers ...blob) map[string]any {
	l.t.Helper()
	list := []any{}
	for _, b := range layers {
		list = append(list, l.blob(typeLayer, b.stored))
	}
	manifest := map[string]any{"schemaVersion": 2, "mediaType": typeManifest,
		"config": l.blob(typeConfig, config), "layers": list}
	return l.blob(typeManifest, encode(l.t, manifest))
}

func (l *layout) index(manifests ...map[string]any) {
	l.t.Helper()
	l.write("index.json", indexOf(l.t, manifests...))
}

func indexOf(t testing.TB, manifests ...map[string]any) []byte {
	t.Helper()
	return encode(t, map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": manifests})
}

func ociLayout(t testing.TB, layers ...blob) string {
	t.Helper()
	l := newLayout(t)
	l.index(l.image(config(t, layers...), layers...))
	return "oci:" + l.dir
}
