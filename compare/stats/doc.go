// Package stats holds the statistics of `duplex compare`: few, named, seeded,
// and the same for every metric. It knows nothing of phases or processes.
//
// Times of process starts are skewed, have a floor and stray far upward, so
// everything here is about medians and ranks:
//
//   - Compare: the difference of the medians with its bootstrap interval,
//     Mann-Whitney p, Cliff's delta, and whether one side may be called smaller.
//   - NoiseFloor: how far apart two halves of the same side lie by chance.
//   - FarOut: which samples are outliers. They are named and never dropped.
//   - P99: only for samples that can hold one.
//
// Start with Compare; docs/measuring.md says how to read what it returns.
package stats
