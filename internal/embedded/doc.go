// Package embedded holds the programs that one static duplex binary carries so
// that it needs no Go toolchain where it runs: the guest agent, the isolation
// probe and the builtin image. `make build` compiles them, compresses them with
// zstd and puts them under files/ before it compiles cmd/duplex.
package embedded
