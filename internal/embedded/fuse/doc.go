// Fuse makes one executable of several programs: a build tool.
//
//	fuse [-env VARIABLE=VALUE] [-zero SYMBOL]... OUTPUT PROGRAM [INDEX:WORD[,LATER]=PROGRAM...]
//
// The kernel maps them all, each at the addresses it was linked for, which costs a
// few microseconds: nothing is read until it is touched. A few instructions of our
// own, where the file is entered, go on at the first program whose WORD is the
// argument of that INDEX (argv[0] is 0) and whose LATER, if it has one, is an argument
// behind it, or at PROGRAM. So `duplex oci` begins as
// quickly as a program that can do nothing else.
//
// The programs must be static, not position-independent, and linked apart: Go's
// -ldflags '-T ADDRESS'. PROGRAM is copied as it is, and of the others what is mapped,
// one behind the other, so the file still is PROGRAM to all tools that read its
// sections.
//
// All but PROGRAM get the environment variable of -env as their first, and find 0 in
// the variables of -zero, eight bytes each in their symbol table: what Go's runtime
// reads before any code of theirs runs.
package main
