package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// echoLines gives back each line until "quit".
func echoLines(f io.ReadWriter) error {
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(f, "you said %s", line); err != nil {
			return err
		}
		if strings.TrimSpace(line) == "quit" {
			return nil
		}
	}
}

// raw takes echo and line editing from a terminal.
func raw(f *os.File) error {
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Lflag &^= unix.ECHO | unix.ICANON
	t.Oflag &^= unix.OPOST
	t.Iflag &^= unix.ICRNL
	return unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
}

func echoOn(path string) error {
	f, err := byGlob(path, os.O_RDWR|unix.O_NOCTTY)
	if err != nil {
		return err
	}
	if err := raw(f); err != nil {
		return err
	}
	fmt.Println("bare: ready")
	return echoLines(f)
}

func echo() error { return echoOn("/dev/ttyS0") }
func hvc() error  { return echoOn("/dev/hvc0") }

// button waits for the power button.
func button() error {
	f, err := byGlob("/dev/input/event0", os.O_RDONLY)
	if err != nil {
		return err
	}
	fmt.Println("bare: ready")
	event := make([]byte, 24) // struct input_event
	for {
		if _, err := io.ReadFull(f, event); err != nil {
			return err
		}
		const key, power = 1, 116 // EV_KEY, KEY_POWER
		if binary.NativeEndian.Uint16(event[16:]) == key && binary.NativeEndian.Uint16(event[18:]) == power {
			return nil
		}
	}
}

// diskBySerial is the device file of the disk with a serial number.
func diskBySerial(serial string) (string, error) {
	return await(func() (string, error) {
		names, _ := filepath.Glob("/sys/block/vd*/serial")
		for _, n := range names {
			if b, err := os.ReadFile(n); err == nil && strings.TrimSpace(string(b)) == serial {
				return "/dev/" + filepath.Base(filepath.Dir(n)), nil
			}
		}
		return "", fmt.Errorf("no disk %q among %q", serial, names)
	})
}

// disk fills the first MiB of the disk "rw" with its offset, discards the second,
// zeroes the third, and finds the disk "ro" as the host wrote it.
func disk() error {
	path, err := diskBySerial("rw")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	const mib = 1 << 20
	page, err := unix.Mmap(-1, 0, mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	for i := 0; i < mib; i += 8 {
		binary.LittleEndian.PutUint64(page[i:], uint64(i))
	}
	if _, err := f.WriteAt(page, 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	for _, c := range []struct {
		name string
		req  uint
	}{{"discard", unix.BLKDISCARD}, {"zero", unix.BLKZEROOUT}} {
		if err := blkRange(f, c.req, uint64(mib)*map[string]uint64{"discard": 1, "zero": 2}[c.name], mib); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	clear(page)
	if _, err := f.ReadAt(page, 2*mib); err != nil {
		return err
	}
	if !bytes.Equal(page, make([]byte, mib)) {
		return errors.New("zeroed blocks are not zero")
	}
	if path, err = diskBySerial("ro"); err != nil {
		return err
	}
	text := make([]byte, 19)
	ro, err := os.Open(path)
	if err != nil {
		return err
	}
	if _, err := ro.ReadAt(text, 512); err != nil || string(text) != "written by the host" {
		return fmt.Errorf("the read-only disk: %q, %v", text, err)
	}
	if w, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
		if _, err := w.WriteAt(make([]byte, 512), 0); err == nil {
			err = w.Sync()
			if err == nil {
				return errors.New("the read-only disk takes writes")
			}
		}
	}
	queues, _ := filepath.Glob("/sys/block/" + filepath.Base(f.Name()) + "/mq/*")
	fmt.Println("bare: queues", len(queues))
	return nil
}

// share mounts the shares "rw" and "ro".
func share() error {
	for _, tag := range []string{"rw", "ro"} {
		if err := os.MkdirAll("/"+tag, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(tag, "/"+tag, "virtiofs", 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", tag, err)
		}
		text, err := os.ReadFile("/" + tag + "/hello")
		if err != nil || string(text) != "from the host" {
			return fmt.Errorf("%s: %q, %v", tag, text, err)
		}
	}
	if err := os.WriteFile("/rw/answer", []byte("from the guest"), 0o640); err != nil {
		return err
	}
	if err := os.Rename("/rw/answer", "/rw/renamed"); err != nil {
		return err
	}
	if err := os.WriteFile("/ro/answer", nil, 0o600); !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("write to the read-only share: %v", err)
	}
	if text, err := os.ReadFile("/rw/outside"); err == nil {
		return fmt.Errorf("a link out of the share leads to %q", text)
	}
	return nil
}

// balloon uses memory, frees it and waits for the host to say that it has it back.
func balloon() error {
	const n = 96 << 20
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	for i := 0; i < n; i += 4096 {
		b[i] = 1
	}
	fmt.Println("bare: used")
	if err := waitFor("freed"); err != nil {
		return err
	}
	if err := unix.Munmap(b); err != nil {
		return err
	}
	fmt.Println("bare: freed")
	return waitFor("enough")
}

// waitFor reads the serial port until the host says word.
func waitFor(word string) error {
	f, err := os.Open("/dev/ttyS0")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	in := bufio.NewScanner(f)
	for in.Scan() {
		if strings.TrimSpace(in.Text()) == word {
			return nil
		}
	}
	return fmt.Errorf("the host never said %q: %v", word, in.Err())
}

// network sends what the host asks for: UDP to the address in bare.peer from
// bare.address on eth0, until the same comes back.
func network() error {
	if _, err := await(func() (struct{}, error) {
		_, err := os.Stat("/sys/class/net/eth0")
		return struct{}{}, err
	}); err != nil {
		return err
	}
	if err := configure("eth0", os.Getenv("address"), os.Getenv("gateway")); err != nil {
		return err
	}
	return talk(os.Getenv("peer"))
}

const patience = 20 * time.Second
