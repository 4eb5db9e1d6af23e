package image_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/duplex-run/duplex/image"
	"github.com/duplex-run/duplex/internal/testutil/listing"
)

// The commands of the builtin image, run by this kernel in a chroot.
func TestBuiltinCommands(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts the image and runs in it")
	}
	newStore(t)
	img := resolve(t, "builtin", image.Options{})
	at := t.TempDir()
	run := func(argv ...string) (string, int) {
		cmd := &exec.Cmd{
			Path: "/bin/" + argv[0], Args: argv, Env: []string{"PATH=/bin", "HOME=/root"}, Dir: "/",
			SysProcAttr: &syscall.SysProcAttr{Chroot: at},
		}
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState == nil {
			t.Errorf("%q: %v", argv, err)
			return "", -1
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	err := listing.Mounted(img.EROFS, at, func() error {
		for _, tc := range []struct {
			argv   []string
			status int
			out    string
		}{
			{[]string{"true"}, 0, ""},
			{[]string{"false"}, 1, ""},
			{[]string{"echo", "a", "b"}, 0, "a b\n"},
			{[]string{"cat", "/etc/passwd"}, 0, "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\nuser:x:1000:1000:user:/home:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"},
			{[]string{"env"}, 0, "PATH=/bin\nHOME=/root\n"},
			{[]string{"env", "-i", "A=1", "B=2"}, 0, "A=1\nB=2\n"},
			{[]string{"env", "A=1", "sh", "-c", "echo $A"}, 0, "1\n"},
			{[]string{"env", "nosuch"}, 127, "env: nosuch: not found\n"},
			{[]string{"env", "/etc"}, 126, "env: /etc: exec: \"/etc\": is a directory\n"},
			{[]string{"sha256sum", "/etc/group", "/none"}, 1, "564d35dfec11b2279529c73071031a6df951d27978ac44fe4fb1f457daeb4f2c  /etc/group\nsha256sum: open /none: no such file or directory\n"},
			{[]string{"sh", "-c", "echo $0 $# $2; exit 42", "name", "x", "y z"}, 42, "name 2 y z\n"},
			{[]string{"sh", "-c", "yes | head -n 1000 | sha256sum"}, 0, "416725b124f2a0ad8a14c1830189c2e62187e3959d36d53ebe80a3a0cdfe1fc0  -\n"},
			{[]string{"sh", "-ec", "false; echo no"}, 1, ""},
			{[]string{"sh", "-c", "nosuch"}, 127, "\"nosuch\": executable file not found in $PATH\n"},
			{[]string{"sh", "-c"}, 2, "sh: -c needs a command\n"},
			{[]string{"sh", "/none"}, 127, "sh: open /none: no such file or directory\n"},
			{[]string{"sh", "-c", "sh -c 'kill -TERM $$; sleep 9'; echo $?"}, 0, "143\n"},
			{[]string{"sh", "-c", "kill -s KILL $$; sleep 9"}, -1, ""},
			{[]string{"kill", "-NOSUCH", "1"}, 1, "kill: NOSUCH: no such signal\n"},
			{[]string{"kill"}, 1, "kill: no process named\n"},
		} {
			out, status := run(tc.argv...)
			if status != tc.status || out != tc.out {
				t.Errorf("%q: status %d, %q; want %d, %q", tc.argv, status, out, tc.status, tc.out)
			}
		}
		for _, name := range strings.Fields("ls cat echo sleep true false uname ps mount dd sha256sum wc find env id hostname kill sh") {
			if _, err := os.Stat(at + "/bin/" + name); err != nil {
				t.Error(err)
			}
		}
		if info, err := os.Stat(at + "/tmp"); err != nil || info.Mode() != os.ModeDir|os.ModeSticky|0o777 {
			t.Errorf("/tmp: %v, %v", info, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
