package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// flood makes work for the host on every device at once, for ever.
func flood() error {
	fmt.Println("bare: ready")
	line := make([]byte, 4096)
	for i := range line {
		line[i] = 'x'
	}
	line[len(line)-1] = '\n'
	for _, path := range []string{"/dev/ttyS0", "/dev/hvc0"} {
		f, err := byGlob(path, os.O_WRONLY|unix.O_NOCTTY)
		if err != nil {
			return err
		}
		go func() {
			for {
				_, _ = f.Write(line)
			}
		}()
	}
	for range 4 {
		go func() {
			for {
				fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
				if err != nil {
					continue
				}
				_ = unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: 6000})
				_, _ = unix.Write(fd, line)
				_ = unix.Close(fd)
			}
		}()
	}
	path, err := diskBySerial("rw")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for {
		_, _ = f.WriteAt(line, 0)
		_ = f.Sync()
	}
}
