// Package builtin holds the commands of the builtin image that u-root lacks, or
// has in a form that scripts stumble over: its shell takes no arguments, its
// kill no plain signal names. scripts/embed-builtin compiles each directory
// here, together with u-root's own commands, into the image's one program; they
// may import only the standard library and what u-root's go.mod has.
package builtin
