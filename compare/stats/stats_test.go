package stats

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func near(a, b, eps float64) bool { return math.Abs(a-b) <= eps }

func seq(from, to int) []float64 {
	var x []float64
	for i := from; i <= to; i++ {
		x = append(x, float64(i))
	}
	return x
}

func TestMedian(t *testing.T) {
	for _, tc := range []struct {
		x    []float64
		want float64
	}{
		{[]float64{3}, 3}, {[]float64{3, 1}, 2}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5},
	} {
		before := slices.Clone(tc.x)
		if got := Median(tc.x); got != tc.want || !slices.Equal(before, tc.x) {
			t.Errorf("Median(%v) = %v, want %v and the sample left alone", tc.x, got, tc.want)
		}
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("the median of nothing is a number")
	}
}

// The exact values are counts: of the C(6,3) = 20 (or C(8,4) = 70, C(20,10) =
// 184756) orders of two samples, 2 are complete separations. Of the 252 orders
// of 5 and 5, U is 0 in one, 1 in one and 2 in two, on either end.
func TestMannWhitney(t *testing.T) {
	for _, tc := range []struct {
		name string
		a, b []float64
		want float64
	}{
		{"separated 3/3", seq(1, 3), seq(4, 6), 2.0 / 20},
		{"separated 4/4", seq(1, 4), seq(5, 8), 2.0 / 70},
		{"separated 10/10", seq(1, 10), seq(11, 20), 2.0 / 184756},
		{"mirrored", seq(5, 8), seq(1, 4), 2.0 / 70},
		{"U=2 of 5/5", []float64{1, 2, 3, 4, 7}, []float64{5, 6, 8, 9, 10}, 2 * 4.0 / 252},
		{"all equal", []float64{1, 1}, []float64{1, 1, 1}, 1},
		{"interleaved", []float64{1, 4, 5, 8}, []float64{2, 3, 6, 7}, 1},
	} {
		if got := MannWhitney(tc.a, tc.b); !near(got, tc.want, 1e-9) {
			t.Errorf("%s: p = %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestCliffsDelta(t *testing.T) {
	for _, tc := range []struct {
		a, b []float64
		want float64
	}{
		{seq(1, 3), seq(4, 6), -1}, {seq(4, 6), seq(1, 3), 1}, {seq(1, 3), seq(1, 3), 0},
		{[]float64{1, 2, 3}, []float64{2}, 0}, {[]float64{2, 3, 4, 5}, []float64{1, 3}, 5.0 / 8},
	} {
		if got := CliffsDelta(tc.a, tc.b); !near(got, tc.want, 1e-9) {
			t.Errorf("CliffsDelta(%v, %v) = %v, want %v", tc.a, tc.b, got, tc.want)
		}
	}
}

func TestQuantileType7(t *testing.T) {
	s := []float64{1, 2, 3, 4}
	for q, want := range map[float64]float64{0: 1, 0.25: 1.75, 0.5: 2.5, 0.9: 3.7, 1: 4} {
		if got := quantile(s, q); !near(got, want, 1e-9) {
			t.Errorf("quantile %v = %v, want %v", q, got, want)
		}
	}
}

func TestFarOut(t *testing.T) {
	x := []float64{10, 11, 500, 12, 13, 10, 11, -400}
	if got := FarOut(x); !slices.Equal(got, []int{2, 7}) {
		t.Errorf("got %v, want 2 and 7", got)
	}
	if got := FarOut([]float64{1, 1, 900}); got != nil {
		t.Errorf("three samples have outliers %v", got)
	}
	if got := FarOut(seq(1, 100)); got != nil {
		t.Errorf("an even spread has outliers %v", got)
	}
}

func TestP99OnlyForLargeSamples(t *testing.T) {
	if _, ok := P99(seq(1, 299)); ok {
		t.Error("299 samples gave a p99")
	}
	if got, ok := P99(seq(1, 300)); !ok || got != 297 {
		t.Errorf("got %v %v, want 297", got, ok)
	}
}

func TestBootstrapKnownDistribution(t *testing.T) {
	// For a sample of n from a normal distribution the median has a standard
	// error near 1.2533 sigma/sqrt(n), so the difference of two has sqrt(2) that.
	rng := rand.New(rand.NewPCG(7, 7))
	a, b := make([]float64, 400), make([]float64, 400)
	for i := range a {
		a[i], b[i] = 100+10*rng.NormFloat64(), 90+10*rng.NormFloat64()
	}
	d := Compare(a, b, 1)
	width := 2 * 1.96 * math.Sqrt2 * 1.2533 * 10 / math.Sqrt(400)
	if d.Low > 10 || d.High < 10 || !near(d.High-d.Low, width, 0.4*width) {
		t.Errorf("interval [%v, %v] of a difference of 10, want a width near %v", d.Low, d.High, width)
	}
	if d.Smaller() != 1 {
		t.Errorf("b is smaller, got %d", d.Smaller())
	}
}

func TestSameSeedSameResult(t *testing.T) {
	a, b := seq(1, 10), seq(4, 13)
	if Compare(a, b, 42) != Compare(a, b, 42) {
		t.Error("the same seed gave two results")
	}
	x, y := Compare(a, b, 42), Compare(a, b, 43)
	if x.Diff != y.Diff || x.P != y.P || x.Delta != y.Delta {
		t.Error("the seed changed what does not depend on it")
	}
}

func TestNoWinner(t *testing.T) {
	for _, tc := range []struct {
		name string
		a, b []float64
		want int
	}{
		{"interval holds zero", []float64{1, 5, 9, 2, 8}, []float64{2, 6, 7, 3, 9}, 0},
		{"identical", seq(1, 10), seq(1, 10), 0},
		{"too few, far apart", seq(1, 3), seq(100, 102), 0},
		{"far apart", seq(1, 5), seq(100, 104), -1},
		{"far apart, the other way", seq(100, 104), seq(1, 5), 1},
		{"constant on both sides", []float64{5, 5, 5, 5}, []float64{5, 5, 5, 5}, 0},
	} {
		if got := Compare(tc.a, tc.b, 1).Smaller(); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
	if d := (Difference{Diff: 5, Low: 0, High: 9, HasInterval: true}); d.Smaller() != 0 {
		t.Error("an interval that touches zero has a winner")
	}
	if d := (Difference{Diff: 5, Low: 1, High: 9, HasInterval: true, Floor: 6}); d.Smaller() != 0 {
		t.Error("a difference below the noise floor has a winner")
	}
}

// A side against itself must seldom win: skewed samples of 10, 400 times.
func TestFalseWinnersAreRare(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 3))
	draw := func() []float64 {
		x := make([]float64, 10)
		for i := range x {
			x[i] = math.Exp(rng.NormFloat64())
		}
		return x
	}
	const rounds = 400
	winners := 0
	for i := range rounds {
		if Compare(draw(), draw(), uint64(i)).Smaller() != 0 {
			winners++
		}
	}
	t.Logf("%d of %d A/A comparisons had a winner", winners, rounds)
	if winners > rounds*5/100 {
		t.Errorf("%d of %d A/A comparisons had a winner, want at most 5%%", winners, rounds)
	}
}

func TestNoiseFloor(t *testing.T) {
	if d := Compare(seq(1, 3), seq(4, 6), 1); d.HasInterval || d.Floor != 0 {
		t.Errorf("three samples have an interval or a noise floor: %+v", d)
	}
	if got := NoiseFloor([]float64{7, 7, 7, 7, 7}, 1); got != 0 {
		t.Errorf("constant samples have a floor of %v", got)
	}
	narrow, wide := NoiseFloor([]float64{99, 100, 101, 100, 99, 101}, 1), NoiseFloor([]float64{50, 100, 150, 100, 50, 150}, 1)
	if narrow <= 0 || !near(wide, 50*narrow, 1e-6) {
		t.Errorf("floors %v and %v: the wider sample should have 50 times the floor", narrow, wide)
	}
}

func BenchmarkCompare10(b *testing.B) {
	x, y := seq(1, 10), seq(4, 13)
	for b.Loop() {
		Compare(x, y, 1)
	}
}

func BenchmarkCompare300(b *testing.B) {
	x, y := seq(1, 300), seq(4, 303)
	for b.Loop() {
		Compare(x, y, 1)
	}
}
