package plainjson

import (
	"reflect"
	"slices"
	"strings"
)

// field is one of a struct, or of a struct embedded in it.
type field struct {
	name      string
	index     []int // as of reflect.Value.FieldByIndex
	omitEmpty bool
}

// maxFields is how many one struct may have: Decode keeps a bit of each.
const maxFields = 64

// fieldsOf lists the fields of a struct that JSON shows, in their order; false when
// one is not plain.
func fieldsOf(t reflect.Type) ([]field, bool) {
	list := make([]field, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		switch {
		case f.Anonymous && name == "" && tag != "-":
			if f.Type.Kind() != reflect.Struct {
				return nil, false
			}
			inner, ok := fieldsOf(f.Type)
			if !ok {
				return nil, false
			}
			for _, in := range inner {
				list = append(list, field{in.name, slices.Concat(f.Index, in.index), in.omitEmpty})
			}
			continue
		case !f.IsExported() || tag == "-":
			continue
		case options != "" && options != "omitempty":
			return nil, false
		case name == "":
			name = f.Name
		}
		list = append(list, field{name, f.Index, options == "omitempty"})
	}
	return list, len(list) <= maxFields
}

// find returns the place in fields of the one called name, or -1 when there is none;
// false when only package json knows, which does not look at the case of letters.
// Most are where the last one makes it expect them.
func find(fields []field, name []byte, expected int) (int, bool) {
	for i := range fields {
		if n := (i + expected) % len(fields); fields[n].name == string(name) {
			return n, true
		}
	}
	for _, f := range fields {
		if strings.EqualFold(f.name, string(name)) {
			return 0, false
		}
	}
	return -1, true
}
