package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/duplex-run/duplex/image/erofs"
	"github.com/duplex-run/duplex/internal/embedded/builtinid"
	"github.com/duplex-run/duplex/internal/workload"
)

// BuiltinDirs and BuiltinFiles are what the builtin image has beside u-root's
// commands. Modes as in Debian.
var BuiltinDirs = []struct {
	Path string
	Mode uint32
}{
	{"bin", 0o755}, {"dev", 0o755}, {"etc", 0o755}, {"home", 0o755}, {"mnt", 0o755},
	{"proc", 0o555}, {"root", 0o700}, {"run", 0o755}, {"sys", 0o555}, {"tmp", 0o1777},
	{"usr", 0o755}, {"usr/bin", 0o755}, {"var", 0o755}, {"var/tmp", 0o1777},
}

var BuiltinFiles = []struct {
	Path    string
	Mode    uint32
	Content string
}{
	{"etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n" +
		"daemon:x:1:1:daemon:/:/bin/false\n" +
		"user:x:1000:1000:user:/home:/bin/sh\n" +
		"nobody:x:65534:65534:nobody:/:/bin/false\n"},
	{"etc/group", 0o644, "root:x:0:\ndaemon:x:1:\ntty:x:5:\nusers:x:100:user\nuser:x:1000:\nnogroup:x:65534:\n"},
	{"etc/os-release", 0o644, "ID=duplex\nNAME=\"duplex builtin\"\nPRETTY_NAME=\"duplex builtin image (u-root)\"\n"},
	{"etc/nsswitch.conf", 0o644, "hosts: files dns\n"},
}

// openBuiltin takes the image that this binary carries. Its digest is over the
// id of the embedded archive and the files above.
func openBuiltin(ref Reference) (*Source, error) {
	id, err := builtinid.Get()
	if errors.Is(err, builtinid.ErrMissing) {
		return nil, &workload.Error{Op: "image builtin", Err: err,
			Remedy: "Build duplex with 'make build'."}
	}
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "builtin %s %v %v", id, BuiltinDirs, BuiltinFiles)
	digest := hex.EncodeToString(h.Sum(nil))
	src := &Source{
		Ref: ref, Digest: digest,
		Config: Config{Env: []string{"PATH=/bin:/usr/bin"}, Cmd: []string{"/bin/sh"}},
	}
	if write := Writers.Builtin; write != nil {
		src.Write = func(ctx context.Context, out *os.File, opts Options) (erofs.Stats, error) {
			opts.Say("unpacking the builtin image (once)")
			return write(ctx, out, digest)
		}
	}
	return src, nil
}
