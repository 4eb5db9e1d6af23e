// Package program has the executable of a container's own processes: where it comes
// from, and why nothing in a container can change a file of the host through it.
package program
