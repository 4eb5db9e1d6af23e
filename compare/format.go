package compare

import (
	"fmt"
	"math"
	"strings"
)

// unit is a scale for numbers of one kind.
type unit struct {
	name string
	size float64
}

var (
	timeUnits  = []unit{{"s", 1e9}, {"ms", 1e6}, {"us", 1e3}, {"ns", 1}}
	byteUnits  = []unit{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}
	countUnits = []unit{{"", 1}}
)

func unitsOf(name string) []unit {
	switch name {
	case "ns":
		return timeUnits
	case "bytes":
		return byteUnits
	default:
		return countUnits
	}
}

// pick returns the largest unit that v fills.
func pick(units []unit, v float64) unit {
	for _, u := range units {
		if math.Abs(v) >= u.size {
			return u
		}
	}
	return units[len(units)-1]
}

// digits formats v with three significant digits of the size of scale, so that
// numbers beside each other have the same precision.
func digits(v, scale float64) string {
	switch scale = math.Abs(scale); {
	case scale >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case scale >= 9.995:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// quantityText is "12.3 ms".
func quantityText(v float64, unitName string) string {
	if unitName == "count" {
		return fmt.Sprintf("%.0f", v)
	}
	u := pick(unitsOf(unitName), v)
	if u.size == 1 {
		return fmt.Sprintf("%.0f %s", v, u.name)
	}
	return digits(v/u.size, v/u.size) + " " + u.name
}

// signedText is quantityText with a sign, always.
func signedText(v float64, unitName string) string {
	s := quantityText(v, unitName)
	if v > 0 {
		s = "+" + s
	}
	return s
}

// intervalText is "-12.3..+4.5 ms", both ends in one unit and precision.
func intervalText(low, high float64, unitName string) string {
	scale := max(math.Abs(low), math.Abs(high))
	u := pick(unitsOf(unitName), scale)
	s := scale / u.size
	return strings.TrimSpace(fmt.Sprintf("%s..%s %s", signed(digits(low/u.size, s)), signed(digits(high/u.size, s)), u.name))
}

func signed(s string) string {
	if strings.HasPrefix(s, "-") {
		return s
	}
	return "+" + s
}

// pText is ".031", "<.001" or "1.00".
func pText(p float64) string {
	switch {
	case math.IsNaN(p):
		return "?"
	case p < 0.001:
		return "<.001"
	case p > 0.9994:
		return "1"
	default:
		return strings.TrimPrefix(fmt.Sprintf("%.3f", p), "0")
	}
}

// Quantity is v with its unit ("ns", "bytes", "count") as the reports print it, in
// three digits.
func Quantity(v float64, unit string) string { return quantityText(v, unit) }
