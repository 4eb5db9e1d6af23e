package compare

import "math/rand/v2"

// plan returns which side (0 to sides-1) runs when: n rounds, each side once in a
// round, in an order drawn for each round. A drift of the machine then weighs on all
// sides alike, and none always runs after another.
func plan(n, sides int, seed uint64) []int {
	rng := rand.New(rand.NewPCG(seed, 0x706c616e))
	order := make([]int, 0, sides*n)
	for range n {
		var left []int
		for side := range sides {
			left = append(left, side)
		}
		for len(left) > 1 {
			i := rng.IntN(len(left))
			order = append(order, left[i])
			left = append(left[:i], left[i+1:]...)
		}
		order = append(order, left[0])
	}
	return order
}
