// Package hostcheck finds out what this host can do for duplex, by trying it
// where trying is harmless, and says what to do about what it cannot.
//
// Every Check answers one question with a State, the evidence, and a remedy
// when the state is not OK. Feature checks that need privileges are tried in a
// child in namespaces of its own (see Child), so that the answer is about this
// user on this kernel and not about version numbers.
package hostcheck
