// Package proxy is what the networks of duplex have in common: ports of the host
// that lead inside (docker's -p), and DNS, made with ordinary sockets of this
// process.
//
//	tasks := proxy.NewTasks()
//	p := proxy.Publisher{Tasks: tasks, TCP: make(proxy.Slots, 512), UDP: make(proxy.Slots, 256)}
//	addr, err := p.Publish(proxy.Port{Host: 8080, Guest: 80}, target)
//	r := proxy.Resolver{Tasks: tasks}
//	answer := r.Resolve(query)
//	tasks.Stop(nil)
//	tasks.Wait()
//
// Whoever is on the other end is hostile: what it can take is bounded by Slots.
package proxy
