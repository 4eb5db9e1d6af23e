package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"

	reader "github.com/erofs/go-erofs"
	"github.com/moby/sys/user"

	"github.com/duplex-run/duplex/internal/workload"
)

// maxAccountFile bounds what is read of an image's passwd or group file.
const maxAccountFile = 4 << 20

// User resolves who runs the workload: flag as docker's --user takes it (user,
// uid, user:group, uid:gid), or the image's own choice when flag is empty.
// Names are looked up in the image's /etc/passwd and /etc/group; an image
// without them knows only numbers. groups are further ones, names or numbers.
func (i *Image) User(flag string, groups ...string) (workload.User, error) {
	spec := flag
	if spec == "" {
		spec = i.Config.User
	}
	u, err := i.user(spec, groups)
	if err != nil {
		op, remedy := fmt.Sprintf("user %q", spec), "Name a user of the image's /etc/passwd, or a number: --user 1000:1000."
		if len(groups) > 0 {
			op, remedy = fmt.Sprintf("user %q, groups %q", spec, groups), "Name what is in the image's /etc/passwd and /etc/group, or numbers: --group-add 1001."
		}
		return workload.User{}, &workload.Error{Op: op, Err: err, Remedy: remedy}
	}
	return u, nil
}

func (i *Image) user(spec string, groups []string) (_ workload.User, err error) {
	fsys, closer, err := i.Open()
	if err != nil {
		return workload.User{}, err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	passwd, err := accounts(fsys, "etc/passwd")
	if err != nil {
		return workload.User{}, err
	}
	group, err := accounts(fsys, "etc/group")
	if err != nil {
		return workload.User{}, err
	}
	return lookUp(spec, groups, passwd, group)
}

// lookUp finds a user and groups in files of accounts.
func lookUp(spec string, groups []string, passwd, group []byte) (workload.User, error) {
	found, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return workload.User{}, err
	}
	if slices.Contains(groups, "") {
		return workload.User{}, errors.New("a group without a name") // which the library does not survive
	}
	more, err := user.GetAdditionalGroups(groups, bytes.NewReader(group))
	if err != nil {
		return workload.User{}, err
	}
	slices.Sort(more)
	// The library takes the numbers in the files as they are: 4294967295 would mean
	// "no change" to setresuid(2), and leave root what it is.
	for _, id := range slices.Concat([]int{found.Uid, found.Gid}, found.Sgids) {
		if id < 0 || id > math.MaxInt32 {
			return workload.User{}, fmt.Errorf("%d is no user or group: %w", id, user.ErrRange)
		}
	}
	out := workload.User{UID: uint32(found.Uid), GID: uint32(found.Gid), Home: found.Home}
	for _, g := range slices.Concat(found.Sgids, more) {
		if !slices.Contains(out.Groups, uint32(g)) {
			out.Groups = append(out.Groups, uint32(g))
		}
	}
	return out, nil
}

// Open returns the image's files for reading. Links in it are resolved inside
// it. The caller closes the closer when done.
func (i *Image) Open() (fs.FS, io.Closer, error) {
	f, err := os.Open(i.EROFS)
	if err != nil {
		return nil, nil, err
	}
	fsys, err := reader.Open(f)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", i.EROFS, err), f.Close())
	}
	return fsys, f, nil
}

// accounts reads a regular file of the image; a missing one, or one that is
// something else, is nil, which means no accounts.
func accounts(fsys fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil // whatever is wrong there, the image names nobody
	}
	if info.Size() > maxAccountFile {
		return nil, fmt.Errorf("/%s: %d bytes, more than %d", name, info.Size(), maxAccountFile)
	}
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", name, err)
	}
	return data, nil
}
