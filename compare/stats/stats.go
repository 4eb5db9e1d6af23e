package stats

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"

	moremath "github.com/aclements/go-moremath/stats"
)

// MinSamples is how many samples a side needs before an interval, a noise floor
// or a winner is given: with three on each side even complete separation has a
// Mann-Whitney p of 0.1, with four it has 0.029.
const MinSamples = 4

// MinP99 is how many samples a 99th percentile needs: with 300, three lie above.
const MinP99 = 300

// Level is the coverage of every interval.
const Level = 0.95

// resamples is the number of bootstrap resamples and of random splits. The ends
// of a 95% interval then rest on 100 resamples each (Efron and Tibshirani, An
// Introduction to the Bootstrap, 1993, section 12.5, ask for 1,000 or more).
const resamples = 4000

// Difference is what a comparison of sample a with sample b says. Values have
// the unit of the samples.
type Difference struct {
	// Diff is median(a) - median(b): negative when a is smaller.
	Diff float64 `json:"diff"`
	// Low and High bound Diff; they and Floor are zero without HasInterval.
	Low         float64 `json:"low"`
	High        float64 `json:"high"`
	HasInterval bool    `json:"has_interval"`
	// P is the two-sided Mann-Whitney p, 0 to 1.
	P float64 `json:"p"`
	// Delta is Cliff's delta, -1 (every a below every b) to 1.
	Delta float64 `json:"delta"`
	// Floor is the larger noise floor of the two sides.
	Floor float64 `json:"noise_floor"`
}

// Compare compares two samples; neither may be empty. The same seed and samples
// give the same result.
func Compare(a, b []float64, seed uint64) Difference {
	d := Difference{
		Diff:  Median(a) - Median(b),
		P:     MannWhitney(a, b),
		Delta: CliffsDelta(a, b),
	}
	if min(len(a), len(b)) >= MinSamples {
		d.Low, d.High = bootstrap(a, b, seed)
		d.Floor = max(NoiseFloor(a, seed), NoiseFloor(b, seed+1))
		d.HasInterval = true
	}
	return d
}

// Smaller says which sample may be called smaller: -1 for a, 1 for b, and 0
// when the interval is missing, holds zero, or the difference does not rise
// above the noise floor.
func (d Difference) Smaller() int {
	switch {
	case !d.HasInterval || d.Low <= 0 && d.High >= 0 || math.Abs(d.Diff) <= d.Floor:
		return 0
	case d.Diff < 0:
		return -1
	default:
		return 1
	}
}

// Median returns the median of x, the mean of the middle two for an even
// number; NaN for none.
func Median(x []float64) float64 {
	s := slices.Clone(x)
	slices.Sort(s)
	return sortedMedian(s)
}

func sortedMedian(s []float64) float64 {
	n := len(s)
	if n == 0 {
		return math.NaN()
	}
	return (s[(n-1)/2] + s[n/2]) / 2
}

// bootstrap returns the percentile bootstrap interval of median(a) - median(b):
// both samples are resampled on their own, with replacement (Efron and
// Tibshirani 1993, section 13.3). Percentile and not BCa: BCa wants the
// acceleration from the jackknife, which fails for the median (the same,
// section 10.6).
func bootstrap(a, b []float64, seed uint64) (low, high float64) {
	rng := rand.New(rand.NewPCG(seed, 0x626f6f74))
	ra, rb := newResampler(a), newResampler(b)
	diffs := make([]float64, resamples)
	for i := range diffs {
		diffs[i] = ra.median(rng) - rb.median(rng)
	}
	slices.Sort(diffs)
	tail := (1 - Level) / 2
	return quantile(diffs, tail), quantile(diffs, 1-tail)
}

// Ratio returns median(a) / median(b) and its percentile bootstrap interval, made
// as for the difference; neither may be empty.
func Ratio(a, b []float64, seed uint64) (ratio, low, high float64) {
	rng := rand.New(rand.NewPCG(seed, 0x7261746f))
	ra, rb := newResampler(a), newResampler(b)
	ratios := make([]float64, resamples)
	for i := range ratios {
		ratios[i] = ra.median(rng) / rb.median(rng)
	}
	slices.Sort(ratios)
	tail := (1 - Level) / 2
	return Median(a) / Median(b), quantile(ratios, tail), quantile(ratios, 1-tail)
}

// resampler draws medians of resamples in linear time: it counts how often each
// of the sorted values was drawn.
type resampler struct {
	sorted []float64
	counts []int
}

func newResampler(x []float64) *resampler {
	s := slices.Clone(x)
	slices.Sort(s)
	return &resampler{sorted: s, counts: make([]int, len(s))}
}

func (r *resampler) median(rng *rand.Rand) float64 {
	n := len(r.sorted)
	clear(r.counts)
	for range n {
		r.counts[rng.IntN(n)]++
	}
	return (r.at((n-1)/2) + r.at(n/2)) / 2
}

// at returns the value of rank k, from 0, in the resample.
func (r *resampler) at(k int) float64 {
	for i, c := range r.counts {
		if k -= c; k < 0 {
			return r.sorted[i]
		}
	}
	return r.sorted[len(r.sorted)-1]
}

// quantile interpolates linearly between order statistics (type 7 of Hyndman
// and Fan, 1996); s is sorted and not empty.
func quantile(s []float64, q float64) float64 {
	pos := q * float64(len(s)-1)
	i := int(pos)
	if i+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[i] + (pos-float64(i))*(s[i+1]-s[i])
}

// MannWhitney returns the two-sided p of the Mann-Whitney U test: exact up to
// 50 samples (25 with ties), beyond that by the normal approximation with tie
// and continuity corrections. Samples that are all equal give 1.
func MannWhitney(a, b []float64) float64 {
	r, err := moremath.MannWhitneyUTest(a, b, moremath.LocationDiffers)
	if errors.Is(err, moremath.ErrSamplesEqual) {
		return 1
	}
	if err != nil {
		return math.NaN() // an empty sample
	}
	return min(r.P, 1)
}

// CliffsDelta returns how much more often a value of a lies above one of b than
// below, over all pairs (Cliff, Dominance statistics, 1993).
func CliffsDelta(a, b []float64) float64 {
	above := 0
	for _, x := range a {
		for _, y := range b {
			switch {
			case x > y:
				above++
			case x < y:
				above--
			}
		}
	}
	return float64(above) / float64(len(a)*len(b))
}

// NoiseFloor compares x with itself (A/A): it splits x at random into halves
// and returns the 95th percentile of the distance of their medians. A
// difference that small is what a side shows against itself one time in
// twenty. Halves are noisier than the whole, so the floor errs upward. x holds
// at least MinSamples.
func NoiseFloor(x []float64, seed uint64) float64 {
	rng := rand.New(rand.NewPCG(seed, 0x6e6f6973))
	s := slices.Clone(x)
	half := len(s) / 2
	apart := make([]float64, resamples)
	for i := range apart {
		rng.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
		apart[i] = math.Abs(Median(s[:half]) - Median(s[half:]))
	}
	slices.Sort(apart)
	return quantile(apart, Level)
}

// FarOut returns the indices of the samples beyond Tukey's outer fences, three
// interquartile ranges from the quartiles (Exploratory Data Analysis, 1977).
func FarOut(x []float64) []int {
	if len(x) < MinSamples {
		return nil
	}
	s := slices.Clone(x)
	slices.Sort(s)
	q1, q3 := quantile(s, 0.25), quantile(s, 0.75)
	low, high := q1-3*(q3-q1), q3+3*(q3-q1)
	var out []int
	for i, v := range x {
		if v < low || v > high {
			out = append(out, i)
		}
	}
	return out
}

// P99 returns the 99th percentile by nearest rank, and false when x has fewer
// than MinP99 samples.
func P99(x []float64) (float64, bool) {
	if len(x) < MinP99 {
		return 0, false
	}
	s := slices.Clone(x)
	slices.Sort(s)
	return s[int(math.Ceil(0.99*float64(len(s))))-1], true
}
