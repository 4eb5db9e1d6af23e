package compare

import (
	"fmt"
	"slices"
	"strings"

	"github.com/duplex-run/duplex/compare/isolation"
)

// isolation shows what the probe found.
func (r *reporter) isolation() {
	st := r.doc.Summary.Isolation
	if st == nil {
		return
	}
	r.printf("\n%s\n", r.paint(bold, "What a program inside sees and may do (tried once, harmlessly)"))
	shown := shownSides(r.doc.Settings.Sides)
	left, width := 18, 31
	r.printf("%-*s%-*s%s\n", left, "", width, r.names[shown[0]], r.names[shown[1]])
	names := findingNames(st)
	for _, name := range names {
		r.printf("%-*s%-*s%s\n", left, clip(name, left-1),
			width, clip(findingText(st, shown[0], name), width-1), clip(findingText(st, shown[1], name), width-1))
	}
	for side, s := range st.Sides {
		if s.Error != "" {
			r.text(fmt.Sprintf("The probe failed in %s: %s", r.names[side], s.Error))
		} else if !slices.Contains(shown, side) {
			r.alike(st, side, names)
		}
	}
}

// shownSides are the two sides whose findings have a column: the first and, as far as
// there is one, the first of the other isolation.
func shownSides(sides []Column) []int {
	for i, s := range sides {
		if s.Isolation() != sides[0].Isolation() {
			return []int{0, i}
		}
	}
	return []int{0, 1}
}

// alike says how the findings on a side differ from those on the shown one of the
// same isolation.
func (r *reporter) alike(st *Study, side int, names []string) {
	like := slices.IndexFunc(r.doc.Settings.Sides, func(c Column) bool {
		return c.Isolation() == r.doc.Settings.Sides[side].Isolation()
	})
	var others []string
	for _, name := range names {
		if text := findingText(st, side, name); text != findingText(st, like, name) {
			others = append(others, name+" "+text)
		}
	}
	if len(others) == 0 {
		r.text(fmt.Sprintf("%s: as %s in every row.", r.names[side], r.names[like]))
	} else {
		r.text(fmt.Sprintf("%s: as %s, but %s.", r.names[side], r.names[like], strings.Join(others, "; ")))
	}
}

func findingText(st *Study, side int, name string) string {
	if f := find(st.Sides[side].Findings, name); f != nil {
		return f.String()
	}
	return "-"
}

func findingNames(st *Study) []string {
	for _, s := range st.Sides {
		if len(s.Findings) > 0 {
			var names []string
			for _, f := range s.Findings {
				names = append(names, f.Name)
			}
			return names
		}
	}
	return nil
}

func find(list []isolation.Finding, name string) *isolation.Finding {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}
