package container

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// work is what runs in the containers of these tests: small commands, so that
// the tests need no image.
func work(args []string) int {
	switch cmd, rest := args[0], args[1:]; cmd {
	case "exit":
		n, _ := strconv.Atoi(rest[0])
		return n
	case "echo":
		for _, a := range rest {
			fmt.Println(a)
		}
	case "env":
		for _, e := range os.Environ() {
			fmt.Println(e)
		}
	case "cat":
		if len(rest) == 0 {
			_, _ = io.Copy(os.Stdout, os.Stdin)
		}
		for _, f := range rest {
			b, err := os.ReadFile(f)
			if err != nil {
				fmt.Println(err)
				return 1
			}
			_, _ = os.Stdout.Write(b)
		}
	case "kill":
		n, _ := strconv.Atoi(rest[0])
		_ = unix.Kill(os.Getpid(), unix.Signal(n))
		time.Sleep(time.Minute)
	case "sleep":
		fmt.Println("sleeping")
		time.Sleep(time.Minute)
	default:
		fmt.Fprintln(os.Stderr, "work: unknown", cmd)
		return 99
	}
	return 0
}
