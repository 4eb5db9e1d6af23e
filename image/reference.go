package image

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Kind is where an image comes from.
type Kind string

// The kinds of references.
const (
	KindBuiltin       Kind = "builtin"
	KindDockerArchive Kind = "docker-archive"
	KindOCI           Kind = "oci"
	KindRootfs        Kind = "rootfs"
	KindDigest        Kind = "sha256" // imported before
)

// Reference names an image; see the package comment for the forms.
type Reference struct {
	Kind Kind
	// Path of the archive, layout or directory; for KindDigest the hex digits.
	Path string
	// Tag of an image in an OCI layout; empty when it holds only one.
	Tag string
}

// ErrReference reports a string that is no reference.
var ErrReference = errors.New("not an image reference")

// minPrefix is the fewest digits a digest may be shortened to.
const minPrefix = 4

// IsHex says whether s is the digits of a digest, or the first of them.
func IsHex(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// maxTag is the length of the longest tag.
const maxTag = 128

// isTag knows the grammar of org.opencontainers.image.ref.name in practice.
func isTag(s string) bool {
	for i, c := range s {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || i > 0 && strings.ContainsRune("._+-", c)) {
			return false
		}
	}
	return s != "" && len(s) <= maxTag
}

// ParseReference parses s without looking at any file. In oci:DIR:TAG the last
// colon separates the tag unless a slash follows it.
func ParseReference(s string) (Reference, error) {
	fail := func(why string) (Reference, error) {
		return Reference{}, fmt.Errorf("%q: %w: %s", s, ErrReference, why)
	}
	if strings.ContainsRune(s, 0) {
		return fail("holds a NUL")
	}
	if s == string(KindBuiltin) {
		return Reference{Kind: KindBuiltin}, nil
	}
	scheme, rest, colon := strings.Cut(s, ":")
	if !colon {
		if len(s) >= minPrefix && IsHex(s) {
			return Reference{Kind: KindDigest, Path: s}, nil
		}
		return fail("want builtin, docker-archive:FILE, oci:DIR[:TAG], rootfs:DIR or a digest")
	}
	if rest == "" {
		return fail("nothing after the colon")
	}
	switch kind := Kind(scheme); kind {
	case KindDockerArchive, KindRootfs:
		return Reference{Kind: kind, Path: rest}, nil
	case KindOCI:
		dir, tag := rest, ""
		if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.Contains(rest[i:], "/") {
			dir, tag = rest[:i], rest[i+1:]
			if dir == "" || !isTag(tag) {
				return fail("want oci:DIR or oci:DIR:TAG")
			}
		}
		return Reference{Kind: kind, Path: dir, Tag: tag}, nil
	case KindDigest:
		if len(rest) < minPrefix || !IsHex(rest) {
			return fail(fmt.Sprintf("want %d to 64 hexadecimal digits", minPrefix))
		}
		return Reference{Kind: kind, Path: rest}, nil
	}
	return fail(fmt.Sprintf("unknown kind %q", scheme))
}

// absolute returns r with an absolute path.
func (r Reference) absolute() (Reference, error) {
	if r.Kind == KindBuiltin || r.Kind == KindDigest {
		return r, nil
	}
	var err error
	r.Path, err = filepath.Abs(r.Path)
	return r, err
}

func (r Reference) String() string {
	switch {
	case r.Kind == KindBuiltin:
		return string(r.Kind)
	case r.Tag != "":
		return string(r.Kind) + ":" + r.Path + ":" + r.Tag
	default:
		return string(r.Kind) + ":" + r.Path
	}
}
