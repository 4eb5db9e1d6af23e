// Package runcli is `duplex run`. It is apart from the other subcommands, and does not
// import what only microVMs and some containers take, because a small program is made
// of it (cmd/duplex-run), which starts sooner. That one becomes all of duplex when
// the flags or the image ask for more; all of duplex has this package, too, and gives
// it what it lacks (Whole).
package runcli
