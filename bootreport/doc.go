// Package bootreport shows where the start of a microVM goes, from exec of duplex
// to the first byte its command writes: `duplex boot-report`.
//
//	doc, err := bootreport.Run(ctx, bootreport.Options{...})
//	bootreport.WriteText(os.Stdout, doc, bootreport.Style{Width: 100})
//
// Three boots are made, each `duplex run` in a process of its own. The first is as
// it comes, whatever the host's page cache holds. The second is observed: every
// exit is traced, and the guest's kernel and agent write down what they do. The
// third is plain again, and what the second took longer is what the looking cost.
// The waterfall is the observed boot's.
//
// Two clocks are involved and never subtracted from one another. What the host saw
// (phases, exits, the agent's marks) is on the host's. What the guest's kernel logs
// is on the guest's; it is placed by the agent's first step, which is a line of that
// log and, right after it, a mark that the host stamps. From there its times are
// counted back as they are, not stretched to fit. Clock says how far the two
// disagree.
//
//	run.go       makes the boots
//	build.go     puts together what they left: Document
//	waterfall.go the Spans
//	exits.go     reads the trace
//	kernel.go    reads the log (package klog, which parses it)
//	advice.go    what would make it quicker, computed from this boot
//	text.go, svg.go, perfetto.go   show it
package bootreport
