// Package netif sets up the network interface of a workload from inside: its
// addresses, routes and the files that name hosts and servers. The agent of a
// microVM and the init of a container share it, so that both isolations show a
// workload the same network.
package netif
