package oci

import (
	"encoding"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Both ways to read a configuration make the same of it.
func FuzzDecode(f *testing.F) {
	example, err := json.Marshal(Example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Add([]byte(`{"ociVersion":"1.0.2","root":null,"windows":{"x":[]},"linux":{"resources":{"blockIO":{"throttleReadBpsDevice":[{"major":8,"rate":5}]}}}}`))
	f.Add([]byte(`{"vm":null,"solaris":{},"zos":{},"freebsd":{},"mounts":[{"destination":"/x","options":[]}]} `))
	f.Add([]byte(`{"OciVersion":"1.0.2","process":{"env":[1]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decode(data)
		want, err2 := decodeAny(data)
		if (err == nil) != (err2 == nil) {
			t.Fatalf("%v, by package json %v", err, err2)
		}
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, by package json %+v", got, want)
		}
	})
}

// No type of a configuration decodes itself, which plainjson.Decode does not know.
func TestSpecIsPlain(t *testing.T) {
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		if seen[typ] {
			return
		}
		seen[typ] = true
		for _, odd := range []reflect.Type{reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler]()} {
			if reflect.PointerTo(typ).Implements(odd) {
				t.Errorf("%v implements %v", typ, odd)
			}
		}
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Array:
			walk(typ.Elem())
		case reflect.Struct:
			for i := range typ.NumField() {
				walk(typ.Field(i).Type)
			}
		}
	}
	walk(reflect.TypeFor[specs.Spec]())
	if len(seen) < 50 {
		t.Errorf("only %d types", len(seen))
	}
}
