package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/duplex-run/duplex/image/erofs"
	"github.com/duplex-run/duplex/image/refused"
	"github.com/duplex-run/duplex/internal/workload"
)

// Config is what an image says about how to run it, docker's names.
type Config struct {
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	Env        []string `json:"env,omitempty"`
	WorkingDir string   `json:"working_dir,omitempty"`
	User       string   `json:"user,omitempty"`
	StopSignal string   `json:"stop_signal,omitempty"`
}

// Image is one image in the store.
type Image struct {
	// Ref is the reference it was imported from.
	Ref string `json:"ref"`
	// Digest is "sha256:" and the digits that key it in the store.
	Digest string `json:"digest"`
	Config Config `json:"config"`
	// Imported is when.
	Imported time.Time `json:"imported"`
	// Inodes counts files; names of one file count once.
	Inodes int `json:"inodes"`
	// Size of the EROFS file in bytes; DiskUsage is what it takes on this
	// host, less when it has holes.
	Size      int64 `json:"size"`
	DiskUsage int64 `json:"disk_usage"`
	// EROFS is the path of the file system image.
	EROFS string `json:"erofs,omitempty"`
	// Tree is the path of the unpacked tree, empty when there is none.
	Tree string `json:"tree,omitempty"`
	// Damaged says that the store's files are not what was imported; then
	// only Digest is set. Resolve imports such an image anew.
	Damaged bool `json:"damaged,omitempty"`

	lock *lock // shared; nil where the store cannot be written
}

// Close lets the image be removed again. It is idempotent.
func (i *Image) Close() error {
	if i.lock == nil {
		return nil
	}
	l := i.lock
	i.lock = nil
	return l.release()
}

// hex returns the digits of the digest.
func (i *Image) hex() string { return strings.TrimPrefix(i.Digest, "sha256:") }

// Rootfs returns the part of the image that a workload.Spec holds.
func (i *Image) Rootfs() workload.Rootfs {
	return workload.Rootfs{Digest: i.Digest, EROFS: i.EROFS, Tree: i.Tree}
}

// Options of Resolve.
type Options struct {
	// NeedTree also unpacks the image, for hosts that cannot mount EROFS.
	NeedTree bool
	// Progress is told, in a line, about steps that take long; may be nil.
	Progress func(string)
}

// Say tells Progress.
func (o Options) Say(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

// Resolve returns the image that ref names, importing it first when the store
// lacks it. Until the image is closed, or the process ends, it cannot be
// removed from the store. Concurrent calls, also of several processes, import
// an image once. Failures are *workload.Error.
func Resolve(ctx context.Context, ref string, opts Options) (*Image, error) {
	img, err := resolve(ctx, ref, opts)
	if err != nil {
		return nil, userError(ref, err)
	}
	return img, nil
}

func resolve(ctx context.Context, ref string, opts Options) (*Image, error) {
	parsed, err := ParseReference(ref)
	if err != nil {
		return nil, err
	}
	st, err := openStore()
	if err != nil {
		return nil, err
	}
	var img *Image
	if parsed.Kind == KindDigest {
		img, err = st.find(ctx, parsed.Path)
	} else {
		img, err = st.fromSource(ctx, parsed, opts)
	}
	if err != nil {
		return nil, err
	}
	if opts.NeedTree && img.Tree == "" {
		if err := st.unpack(ctx, img, opts); err != nil {
			return nil, errors.Join(err, img.Close())
		}
	}
	return img, nil
}

// fromSource opens what ref names and returns its image.
func (s *store) fromSource(ctx context.Context, ref Reference, opts Options) (*Image, error) {
	ref, err := ref.absolute()
	if err != nil {
		return nil, err
	}
	src, err := openSource(ctx, ref)
	if err != nil {
		return nil, err
	}
	return s.ensure(ctx, src, opts)
}

// Source is an image outside the store, of which so far only the identity and
// the configuration were read.
type Source struct {
	Ref    Reference
	Digest string // 64 hexadecimal digits
	Config Config
	// Write makes the file system in out, a new and empty file; see Writers.
	Write func(ctx context.Context, out *os.File, opts Options) (erofs.Stats, error)
}

// ErrNotLinked reports an image that is yet to be imported, in a program that cannot.
var ErrNotLinked = errors.New("this program does not import such images")

// ErrDigest reports content that is not what it is named by.
var ErrDigest = errors.New("digest mismatch")

// ErrFormat reports something that is no image, or not one for this machine.
var ErrFormat = errors.New("not a usable image")

func openSource(ctx context.Context, ref Reference) (*Source, error) {
	switch ref.Kind {
	case KindBuiltin:
		return openBuiltin(ref)
	case KindRootfs:
		return openRootfs(ctx, ref)
	case KindDockerArchive:
		return openDockerArchive(ref)
	case KindOCI:
		return openOCI(ref)
	}
	return nil, fmt.Errorf("%s: %w", ref, ErrReference)
}

// userError adds to an error what the user can do about it.
func userError(ref string, err error) error {
	var known *workload.Error
	if errors.As(err, &known) {
		return err
	}
	remedy := ""
	switch {
	case errors.Is(err, ErrReference):
		remedy = "Images are named builtin, docker-archive:FILE, oci:DIR[:TAG] or rootfs:DIR;\n" +
			"'skopeo copy docker://debian:12 oci:DIR:12' gets one from a registry."
	case errors.Is(err, ErrUnknown):
		remedy = "'duplex image ls' lists what was imported."
	case errors.Is(err, ErrInUse):
		remedy = "Remove it when the run that uses it has ended."
	case errors.Is(err, refused.ErrEscape), errors.Is(err, refused.ErrLimit), errors.Is(err, refused.ErrEntry):
		remedy = "The image was refused and nothing of it was kept."
	case errors.Is(err, ErrDigest), errors.Is(err, io.ErrUnexpectedEOF):
		remedy = "The file is damaged or was tampered with: get it again."
	case errors.Is(err, errDamaged):
		remedy = "Remove it with 'duplex image rm' and import it again."
	case errors.Is(err, fs.ErrPermission):
		remedy = "Run duplex as a user that may read every file of the image."
	case errors.Is(err, erofs.ErrChanged):
		remedy = "Stop what writes there, and run the command again."
	}
	return &workload.Error{Op: "image " + ref, Err: err, Remedy: remedy}
}
