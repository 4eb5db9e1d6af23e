package plainjson

import (
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
)

// Encode returns v as package json writes it, or false when there is in it what this
// package does not know: strings that JSON would escape, numbers that are not whole,
// keys of maps that are no strings.
func Encode(v any) ([]byte, bool) {
	return appendValue(make([]byte, 0, 256), reflect.ValueOf(v), 0)
}

// Marshal is json.Marshal, quicker where v is plain.
func Marshal(v any) ([]byte, error) {
	if text, ok := Encode(v); ok {
		return text, nil
	}
	return json.Marshal(v)
}

func appendValue(b []byte, v reflect.Value, depth int) ([]byte, bool) {
	if depth > maxDepth || !v.IsValid() {
		return nil, false
	}
	if m, ok := marshaler(v); ok {
		text, err := m.MarshalJSON()
		return append(b, text...), err == nil
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, "null"...), true
		}
		return appendValue(b, v.Elem(), depth+1)
	case reflect.Struct:
		return appendStruct(b, v, depth+1)
	case reflect.Map:
		return appendMap(b, v, depth+1)
	case reflect.Slice:
		return appendSlice(b, v, depth+1)
	case reflect.String:
		return appendString(b, v.String())
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool()), true
	}
	switch {
	case v.CanInt():
		return strconv.AppendInt(b, v.Int(), 10), true
	case v.CanUint():
		return strconv.AppendUint(b, v.Uint(), 10), true
	}
	return nil, false
}

// marshaler is v, if it writes itself.
func marshaler(v reflect.Value) (json.Marshaler, bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil, false
		}
	case reflect.Struct:
	default:
		return nil, false
	}
	if v.Type().NumMethod() == 0 || !v.CanInterface() {
		return nil, false
	}
	m, ok := v.Interface().(json.Marshaler)
	return m, ok
}

func appendStruct(b []byte, v reflect.Value, depth int) ([]byte, bool) {
	fields, ok := fieldsOf(v.Type())
	if !ok {
		return nil, false
	}
	b = append(b, '{')
	for _, f := range fields {
		value := v.FieldByIndex(f.index)
		if f.omitEmpty && empty(value) {
			continue
		}
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		if b, ok = appendString(b, f.name); !ok {
			return nil, false
		}
		if b, ok = appendValue(append(b, ':'), value, depth); !ok {
			return nil, false
		}
	}
	return append(b, '}'), true
}

// empty is what omitempty leaves out.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

func appendMap(b []byte, v reflect.Value, depth int) ([]byte, bool) {
	if v.IsNil() {
		return append(b, "null"...), true
	}
	if v.Type().Key().Kind() != reflect.String {
		return nil, false
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(x, y reflect.Value) int {
		if x.String() < y.String() {
			return -1
		}
		return 1
	})
	ok := true
	b = append(b, '{')
	for i, key := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		if b, ok = appendString(b, key.String()); !ok {
			return nil, false
		}
		if b, ok = appendValue(append(b, ':'), v.MapIndex(key), depth); !ok {
			return nil, false
		}
	}
	return append(b, '}'), true
}

func appendSlice(b []byte, v reflect.Value, depth int) ([]byte, bool) {
	if v.IsNil() {
		return append(b, "null"...), true
	}
	if v.Type().Elem().Kind() == reflect.Uint8 {
		return nil, false
	}
	ok := true
	b = append(b, '[')
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, ok = appendValue(b, v.Index(i), depth); !ok {
			return nil, false
		}
	}
	return append(b, ']'), true
}

// appendString appends a string of printable ASCII that needs no escapes.
func appendString(b []byte, s string) ([]byte, bool) {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			return nil, false
		}
	}
	return append(append(b, s...), '"'), true
}
