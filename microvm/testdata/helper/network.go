package main

import (
	"fmt"
	"io"
	"net"
	"os"
)

// network says what there is of a network, and what a peer answers to "ping".
func network(peer string) {
	eth, err := net.InterfaceByName("eth0")
	check(0, err)
	addresses, err := eth.Addrs()
	check(0, err)
	for _, a := range addresses {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil {
			fmt.Println("address", ip, "mtu", eth.MTU)
		}
	}
	for _, path := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		text, err := os.ReadFile(path)
		check(os.Stdout.Write(append([]byte(path+":\n"), text...)))
		check(0, err)
	}
	c, err := net.Dial("tcp", peer)
	check(0, err)
	check(c.Write([]byte("ping")))
	answer := make([]byte, 4)
	check(io.ReadFull(c, answer))
	check(0, c.Close())
	fmt.Printf("peer: %s\n", answer)
}
