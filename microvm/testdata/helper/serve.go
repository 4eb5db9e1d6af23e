package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// serve says text to the first who connects to port 80.
func serve(text string) {
	l, err := net.Listen("tcp", ":80")
	check(0, err)
	fmt.Println("serving")
	c, err := l.Accept()
	check(0, err)
	check(c.Write([]byte(text)))
	check(0, c.Close())
}

// echo sends what comes to port 7 back.
func echo() {
	l, err := net.Listen("tcp", ":7")
	check(0, err)
	for {
		c, err := l.Accept()
		check(0, err)
		go func() {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}()
	}
}

// volumes says what is in each file, and what comes of appending to it.
func volumes(paths []string) {
	for _, path := range paths {
		text, err := os.ReadFile(path)
		check(0, err)
		said := "appended"
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			_, err = f.WriteString("+")
			err = errors.Join(err, f.Close())
		}
		var errno syscall.Errno
		if errors.As(err, &errno) {
			said = errno.Error()
		}
		fmt.Printf("%s: %s, %s\n", path, text, said)
	}
}
