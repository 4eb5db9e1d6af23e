package plainjson

import (
	"bytes"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep values may lie in each other.
const maxDepth = 100

// Decode stores the JSON value data in what v points to, and nothing else of it
// that v has a name for: v is zero before. It reports false for whatever it does not
// know: then v may hold a part. v must not contain types that decode themselves
// (json.Unmarshaler, encoding.TextUnmarshaler), embedded pointers, or two fields of
// one name.
func Decode(data []byte, v any) bool {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() || !utf8.Valid(data) {
		return false
	}
	d := &decoder{data: data, fields: make(map[reflect.Type][]field, 16)}
	if !d.value(rv.Elem(), 0) {
		return false
	}
	d.space()
	return d.at == len(d.data)
}

type decoder struct {
	data   []byte
	at     int
	fields map[reflect.Type][]field
}

func (d *decoder) space() {
	for d.at < len(d.data) && (d.data[d.at] == ' ' || d.data[d.at] == '\n' || d.data[d.at] == '\t' || d.data[d.at] == '\r') {
		d.at++
	}
}

// take skips c behind white space, if it is there.
func (d *decoder) take(c byte) bool {
	d.space()
	if d.at < len(d.data) && d.data[d.at] == c {
		d.at++
		return true
	}
	return false
}

// word skips a literal name.
func (d *decoder) word(w string) bool {
	if !bytes.HasPrefix(d.data[d.at:], []byte(w)) {
		return false
	}
	d.at += len(w)
	return true
}

// value reads one value into v, or skips it when v is the zero Value.
func (d *decoder) value(v reflect.Value, depth int) bool {
	d.space()
	if d.at == len(d.data) || depth > maxDepth {
		return false
	}
	c := d.data[d.at]
	if c == 'n' {
		if v.IsValid() {
			switch v.Kind() {
			case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
				v.SetZero()
			}
		}
		return d.word("null")
	}
	for v.IsValid() && v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	switch c {
	case '{':
		d.at++
		return d.object(v, depth+1)
	case '[':
		d.at++
		return d.array(v, depth+1)
	case '"':
		s, ok := d.str()
		if ok && v.IsValid() {
			if v.Kind() != reflect.String {
				return false
			}
			v.SetString(string(s))
		}
		return ok
	case 't', 'f':
		if v.IsValid() {
			if v.Kind() != reflect.Bool {
				return false
			}
			v.SetBool(c == 't')
		}
		return d.word("true") || d.word("false")
	}
	return d.number(v)
}

// str reads a string and returns what it means.
func (d *decoder) str() ([]byte, bool) {
	if !d.take('"') {
		return nil, false
	}
	begin := d.at
	for ; d.at < len(d.data); d.at++ {
		switch c := d.data[d.at]; {
		case c == '"':
			d.at++
			return d.data[begin : d.at-1], true
		case c == '\\':
			return d.escaped(begin)
		case c < ' ':
			return nil, false
		}
	}
	return nil, false
}

// escaped goes on with a string from begin on at its first backslash. \u is not
// known here.
func (d *decoder) escaped(begin int) ([]byte, bool) {
	const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	out := bytes.Clone(d.data[begin:d.at])
	for ; d.at < len(d.data); d.at++ {
		c := d.data[d.at]
		switch {
		case c == '"':
			d.at++
			return out, true
		case c < ' ':
			return nil, false
		case c == '\\':
			d.at++
			if d.at == len(d.data) {
				return nil, false
			}
			i := strings.IndexByte(from, d.data[d.at])
			if i < 0 {
				return nil, false
			}
			c = to[i]
		}
		out = append(out, c)
	}
	return nil, false
}

// number reads a whole number.
func (d *decoder) number(v reflect.Value) bool {
	begin := d.at
	digits := func() int {
		n := d.at
		for d.at < len(d.data) && d.data[d.at] >= '0' && d.data[d.at] <= '9' {
			d.at++
		}
		return d.at - n
	}
	if d.data[d.at] == '-' {
		d.at++
	}
	first := d.at
	if n := digits(); n == 0 || n > 1 && d.data[first] == '0' {
		return false
	}
	if d.at < len(d.data) && strings.IndexByte(".eE", d.data[d.at]) >= 0 {
		return false
	}
	if !v.IsValid() {
		return true
	}
	text := string(d.data[begin:d.at])
	switch {
	case v.CanInt():
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		v.SetInt(n)
		return err == nil
	case v.CanUint():
		n, err := strconv.ParseUint(text, 10, v.Type().Bits())
		v.SetUint(n)
		return err == nil
	}
	return false
}

func (d *decoder) array(v reflect.Value, depth int) bool {
	if v.IsValid() {
		if v.Kind() != reflect.Slice || v.Type().Elem().Kind() == reflect.Uint8 {
			return false
		}
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	}
	for n := 0; !d.take(']'); n++ {
		if n > 0 && !d.take(',') {
			return false
		}
		var element reflect.Value
		if v.IsValid() {
			v.Grow(1)
			v.SetLen(n + 1)
			element = v.Index(n)
		}
		if !d.value(element, depth) {
			return false
		}
	}
	return true
}

func (d *decoder) object(v reflect.Value, depth int) bool {
	switch {
	case !v.IsValid():
		return d.members(func([]byte) bool { return d.value(v, depth) })
	case v.Kind() == reflect.Struct:
		return d.members(d.structMember(v, depth))
	case v.Kind() == reflect.Map && v.Type().Key().Kind() == reflect.String:
		v.Set(reflect.MakeMap(v.Type()))
		return d.members(func(name []byte) bool {
			key := reflect.ValueOf(string(name)).Convert(v.Type().Key())
			to := reflect.New(v.Type().Elem()).Elem()
			ok := d.value(to, depth)
			v.SetMapIndex(key, to)
			return ok
		})
	}
	return false
}

// members reads the rest of an object; value reads what a name has.
func (d *decoder) members(value func(name []byte) bool) bool {
	for n := 0; !d.take('}'); n++ {
		if n > 0 && !d.take(',') {
			return false
		}
		name, ok := d.str()
		if !ok || !d.take(':') || !value(name) {
			return false
		}
	}
	return true
}

// structMember returns what reads a value of v, a struct, by its name. A name that
// comes twice is not plain: package json merges what they have.
func (d *decoder) structMember(v reflect.Value, depth int) func(name []byte) bool {
	fields, ok := d.fields[v.Type()]
	if !ok {
		if fields, ok = fieldsOf(v.Type()); !ok {
			return func([]byte) bool { return false }
		}
		d.fields[v.Type()] = fields
	}
	var seen uint64
	last := -1
	return func(name []byte) bool {
		i, ok := find(fields, name, last+1)
		switch {
		case !ok || i >= 0 && seen>>i&1 == 1:
			return false
		case i < 0:
			return d.value(reflect.Value{}, depth)
		}
		seen, last = seen|1<<i, i
		return d.value(v.FieldByIndex(fields[i].index), depth)
	}
}
