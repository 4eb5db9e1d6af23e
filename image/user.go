package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	u, err := i.user(spec)
	if err != nil {
		return workload.User{}, &workload.Error{Op: fmt.Sprintf("user %q", spec), Err: err,
			Remedy: "Name a user of the image's /etc/passwd, or a number: --user 1000:1000."}
	}
	if len(groups) == 0 {
		return u, nil
	}
	if err := i.addGroups(&u, groups); err != nil {
		return workload.User{}, &workload.Error{Op: fmt.Sprintf("groups %q", groups), Err: err,
			Remedy: "Name groups of the image's /etc/group, or numbers: --group-add 1001."}
	}
	return u, nil
}

// addGroups gives u further groups.
func (i *Image) addGroups(u *workload.User, groups []string) (err error) {
	if slices.Contains(groups, "") {
		return errors.New("an empty name") // which the library does not survive
	}
	fsys, closer, err := i.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	group, err := accounts(fsys, "etc/group")
	if err != nil {
		return err
	}
	found, err := user.GetAdditionalGroups(groups, group)
	if err != nil {
		return err
	}
	slices.Sort(found)
	for _, g := range found {
		if !slices.Contains(u.Groups, uint32(g)) {
			u.Groups = append(u.Groups, uint32(g))
		}
	}
	return nil
}

func (i *Image) user(spec string) (_ workload.User, err error) {
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
	found, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, passwd, group)
	if err != nil {
		return workload.User{}, err
	}
	out := workload.User{UID: uint32(found.Uid), GID: uint32(found.Gid), Home: found.Home}
	for _, g := range found.Sgids {
		out.Groups = append(out.Groups, uint32(g))
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

// accounts reads a regular file of the image as a bounded stream; a missing
// one, or one that is something else, is nil, which means no accounts.
func accounts(fsys fs.FS, name string) (io.Reader, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil || !info.Mode().IsRegular() {
		return nil, nil // whatever is wrong there, the image names nobody
	}
	if info.Size() > maxAccountFile {
		return nil, fmt.Errorf("/%s: %d bytes, more than %d", name, info.Size(), maxAccountFile)
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", name, err)
	}
	return io.LimitReader(f, maxAccountFile), nil
}
