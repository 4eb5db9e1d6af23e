// Package nic connects a microVM to the interface of a network namespace that
// somebody else has set up: podman's or containerd's network plugins, a hook.
//
// A TAP device beside the interface gets every frame that comes in there, and
// every frame that the guest sends goes out of it, by two redirecting filters
// (tc-mirred(8)). The guest has the interface's addresses, hardware address and
// routes, and whatever is at the other end sees no difference. The interface keeps
// its addresses; the namespace's own stack hears nothing any more.
//
// The TAP device lives as long as the monitor that has it open. The filters on the
// interface are taken away by Disconnect.
package nic
