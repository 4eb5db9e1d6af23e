// Fetch starts nginx in a microVM on a machine that has /dev/kvm, the host or the
// lab, and fetches from it through a published port, with several clients at once:
//
//	fetch DUPLEX KERNEL IMAGE WORKLOADS
//
// scripts/test-kernel runs it; WORKLOADS is the directory scripts/workloads.
package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	address = "127.0.0.1:18080"
	clients = 4
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: fetch DUPLEX KERNEL IMAGE WORKLOADS")
		os.Exit(125)
	}
	if err := serve(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "nginx:", err)
		os.Exit(1)
	}
}

// serve runs the machine, which says "ready" when nginx listens and ends nginx and
// itself when it is written a line.
func serve(duplex, kernel, image, workloads string) error {
	vm := exec.Command(duplex, "run", "-i", "--vm", "--lab=never", "--kernel", kernel, "--network", "user",
		"-p", address+":80", "-v", workloads+":/workloads:ro", image, "/workloads/nginx")
	vm.Stderr = os.Stderr
	in, err := vm.StdinPipe()
	if err != nil {
		return err
	}
	out, err := vm.StdoutPipe()
	if err != nil {
		return err
	}
	if err := vm.Start(); err != nil {
		return err
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || said != "ready\n" {
		_ = in.Close()
		return fmt.Errorf("it said %q, %w, and ended: %w", said, err, vm.Wait())
	}
	err = visit()
	if _, werr := fmt.Fprintln(in, "enough"); err == nil {
		err = werr
	}
	if werr := vm.Wait(); err == nil && werr != nil {
		err = fmt.Errorf("the machine: %w", werr)
	}
	return err
}

// visit fetches as the clients do and prints what it found right.
func visit() error {
	release, err := get("kernel")
	if err != nil {
		return err
	}
	sum, err := get("sum")
	if err != nil {
		return err
	}
	var g errgroup.Group
	for range clients {
		g.Go(func() error {
			data, err := get("data")
			if err == nil && fmt.Sprintf("%x  -\n", sha256.Sum256(data)) != string(sum) {
				err = fmt.Errorf("%d bytes of data are not those that were served", len(data))
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	fmt.Printf("nginx: %d clients fetched 4 MiB each, from Linux %s: passed\n", clients, strings.TrimSpace(string(release)))
	return nil
}

func get(name string) ([]byte, error) {
	client := http.Client{Timeout: 5 * time.Minute} // in the lab, everything is emulated
	r, err := client.Get("http://" + address + "/" + name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Body.Close() }()
	if r.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", name, r.Status)
	}
	return io.ReadAll(r.Body)
}
