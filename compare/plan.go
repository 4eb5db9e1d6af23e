package compare

import "math/rand/v2"

// plan returns which side (0 or 1) runs when: n pairs, each side once in a pair,
// in an order drawn for each pair. A drift of the machine then weighs on both
// sides alike, and neither always runs after the other.
func plan(n int, seed uint64) []int {
	rng := rand.New(rand.NewPCG(seed, 0x706c616e))
	order := make([]int, 0, 2*n)
	for range n {
		first := rng.IntN(2)
		order = append(order, first, 1-first)
	}
	return order
}
