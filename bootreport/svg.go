package bootreport

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// The drawing's measures, in pixels.
const (
	svgWidth  = 1200
	svgMargin = 24
	svgLabels = 330 // of the names
	svgTimes  = 90  // of the lengths, right of the names
	svgRow    = 19
	svgBars   = svgMargin + svgLabels + svgTimes + 10 // where they begin
	svgRight  = svgWidth - svgMargin
	// svgText is how many characters of the smaller text fit into the width.
	svgText = 170
)

// Colours of the groups: told apart by colour-blind people too (Okabe and Ito).
var svgColours = map[string]string{
	GroupHost: "#0072b2", GroupKernel: "#e69f00", GroupAgent: "#cc79a7", GroupCommand: "#009e73",
}

var svgGroups = []struct{ group, name string }{
	{GroupHost, "duplex and its monitor"}, {GroupKernel, "guest kernel"}, {GroupAgent, "guest agent"}, {GroupCommand, "the command"},
}

// WriteSVG draws the waterfall and what would make it quicker. The drawing needs
// nothing else: no script, style sheet or font.
func WriteSVG(out io.Writer, d *Document) error {
	s := &svg{doc: d, y: svgMargin}
	s.head()
	s.axis()
	for i := range d.Spans {
		s.span(&d.Spans[i])
	}
	s.y += svgRow
	s.advice()
	height := s.y + svgMargin
	_, err := fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="Helvetica, Arial, sans-serif" font-size="12">
<rect width="%d" height="%d" fill="#fff"/>
%s</svg>
`, svgWidth, height, svgWidth, height, svgWidth, height, s.b.String())
	if err != nil {
		return fmt.Errorf("draw the report: %w", err)
	}
	return nil
}

type svg struct {
	b   strings.Builder
	doc *Document
	y   int // of the next row's top
}

// escape makes text fit for XML; what XML cannot hold becomes U+FFFD.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder does not fail
	return b.String()
}

// text puts s on the baseline of the row at y.
func (s *svg) text(x, y int, attributes, text string) {
	fmt.Fprintf(&s.b, "<text x=\"%d\" y=\"%d\" %s>%s</text>\n", x, y+14, attributes, escape(text))
}

func (s *svg) head() {
	d := s.doc
	s.text(svgMargin, s.y, `font-size="18" font-weight="bold"`, cut(headline(d), 110))
	s.y += 26
	for _, line := range wrap(fmt.Sprintf("%s from exec of duplex to %s. %s", took(d.TotalNs), endName(d), hostLine(d)), svgText-20) {
		s.text(svgMargin, s.y, `fill="#555"`, line)
		s.y += svgRow - 2
	}
	s.text(svgMargin, s.y, `fill="#555"`, "The boot that was observed: looking took time, too. Pale bars are on the guest's clock, placed by the agent's first step.")
	s.y += svgRow + 4
	x := svgMargin
	for _, g := range svgGroups {
		fmt.Fprintf(&s.b, "<rect x=\"%d\" y=\"%d\" width=\"12\" height=\"12\" fill=\"%s\"/>\n", x, s.y+3, svgColours[g.group])
		s.text(x+18, s.y, "", g.name)
		x += 40 + 7*len(g.name)
	}
	s.y += svgRow + 14
}

// x is where a moment is.
func (s *svg) x(ns int64) float64 {
	return svgBars + float64(svgRight-svgBars)*float64(ns)/float64(max(s.doc.TotalNs, 1))
}

// axis draws lines at round times through all rows.
func (s *svg) axis() {
	step := roundStep(s.doc.TotalNs)
	bottom := s.y + svgRow*(len(s.doc.Spans)+1)
	for at := int64(0); at <= s.doc.TotalNs; at += step {
		x := s.x(at)
		fmt.Fprintf(&s.b, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#ddd\"/>\n", x, s.y+svgRow-2, x, bottom)
		anchor := "middle"
		if x > svgRight-30 {
			anchor = "end"
		}
		s.text(int(x), s.y, fmt.Sprintf(`text-anchor="%s" fill="#555" font-size="11"`, anchor), axisTime(at, step))
	}
	s.y += svgRow
}

// roundStep is 1, 2 or 5 times a power of ten, for four to ten of them in total.
func roundStep(total int64) int64 {
	power := int64(math.Pow(10, math.Floor(math.Log10(float64(max(total, 10))/4))))
	for _, n := range []int64{5, 2} {
		if total/(power*n) >= 4 {
			return power * n
		}
	}
	return power
}

// axisTime is at in a unit that suits the step.
func axisTime(at, step int64) string {
	switch {
	case at == 0:
		return "0"
	case step >= 1e8:
		return fmt.Sprintf("%g s", float64(at)/1e9)
	case step >= 1e5:
		return fmt.Sprintf("%g ms", float64(at)/1e6)
	}
	return fmt.Sprintf("%g us", float64(at)/1e3)
}

func (s *svg) span(p *Span) {
	weight, opacity := "", "0.85"
	if p.Depth == 0 {
		weight, opacity = `font-weight="bold"`, "1"
	}
	length := took(p.Took())
	if p.Clock == GuestClock {
		opacity, length = "0.5", "~"+length
	}
	s.text(svgMargin+14*p.Depth, s.y, weight, cut(p.Name, 52-3*p.Depth))
	s.text(svgMargin+svgLabels+svgTimes, s.y, `text-anchor="end" fill="#555"`, length)
	tip := fmt.Sprintf("%s: %s from %s on", p.Name, length, took(p.StartNs))
	if p.Exits > 0 {
		tip += fmt.Sprintf(", %d exits that the monitor handled in %s", p.Exits, took(int64(p.ExitNs)))
	}
	if p.KVM != nil {
		tip += fmt.Sprintf(", %d exits by KVM's count, idle for %s in %d halts", p.KVM.Exits, took(p.KVM.IdleNs), p.KVM.Halts)
	}
	if p.Faults != nil {
		tip += fmt.Sprintf(", %d page faults", p.Faults.Minor+p.Faults.Major)
	}
	from := s.x(p.StartNs)
	fmt.Fprintf(&s.b, "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\" fill-opacity=\"%s\"><title>%s</title></rect>\n",
		from, s.y+3, max(s.x(p.EndNs)-from, 1), svgRow-5, svgColours[p.Group], opacity, escape(tip))
	s.y += svgRow
}

func (s *svg) advice() {
	if len(s.doc.Advice) == 0 {
		return
	}
	s.text(svgMargin, s.y, `font-size="15" font-weight="bold"`, "What would make it quicker, at most by how much")
	s.y += svgRow + 6
	for _, a := range s.doc.Advice {
		s.text(svgMargin+80, s.y, `text-anchor="end" font-weight="bold"`, adviceTime(a))
		for _, line := range wrap(adviceText(a), svgText-10) {
			s.text(svgMargin+94, s.y, "", line)
			s.y += svgRow - 3
		}
		s.y += 4
	}
}

// wrap cuts s into lines of at most width runes, at spaces where there are any.
func wrap(s string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		word = cut(word, width)
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}
