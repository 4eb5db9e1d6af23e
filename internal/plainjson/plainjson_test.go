package plainjson_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/duplex-run/duplex/internal/plainjson"
)

type base struct {
	Major int64 `json:"major"`
}

type kinds struct {
	Name     string            `json:"name"`
	Yes      bool              `json:"yes,omitempty"`
	Small    int8              `json:"small"`
	Mode     *uint32           `json:"mode,omitempty"`
	List     []string          `json:"list,omitempty"`
	Nested   []*kinds          `json:"nested"`
	Labels   map[string]string `json:"labels,omitempty"`
	Rates    []rate            `json:"rates,omitempty"`
	Bytes    []byte            `json:"bytes,omitempty"`
	Any      any               `json:"any,omitempty"`
	Hidden   string            `json:"-"`
	Untagged uint16
	private  int
}

type rate struct {
	base
	Rate uint64 `json:"rate"`
}

// seeds are texts of which Decode knows some.
var seeds = []struct {
	text  string
	plain bool
}{
	{`{}`, true},
	{` { "name" : "x" , "yes":true,"small":-128,"mode":438,"list":["a","b",""],"Untagged":65535 } `, true},
	{`{"nested":[{"name":"a"},null,{"nested":[]}],"labels":{"b":"1","a":"","b":"2"}}`, true},
	{`{"rates":[{"major":8,"rate":18446744073709551615}]}`, true},
	{`{"name":"a\\\"\/\b\f\n\r\tz","other":{"x":[1,-2,{"y":null}],"z":false}}`, true},
	{`{"name":null,"yes":null,"mode":null,"list":null,"nested":null,"labels":null}`, true},
	{`{"name":"\u00e9"}`, false},
	{`{"name":"é"}`, true},
	{"{\"name\":\"\xff\"}", false},
	{"{\"name\":\"a\nb\"}", false},
	{`{"Name":"x"}`, false},
	{`{"name":"x","name":"y"}`, false},
	{`{"small":128}`, false},
	{`{"small":1.0}`, false},
	{`{"small":01}`, false},
	{`{"small":-}`, false},
	{`{"mode":-1}`, false},
	{`{"yes":1}`, false},
	{`{"yes":tru}`, false},
	{`{"list":{}}`, false},
	{`{"list":["a",]}`, false},
	{`{"list":["a" "b"]}`, false},
	{`{"labels":[]}`, false},
	{`{"bytes":"aGk="}`, false},
	{`{"any":1}`, false},
	{`{"name":"x",}`, false},
	{`{"name" "x"}`, false},
	{`{"name":"x"}}`, false},
	{`{"name":"x"`, false},
	{`[]`, false},
	{``, false},
	{`nul`, false},
	{`null`, true},
	{`{"other":` + string(bytes.Repeat([]byte("["), 200)) + string(bytes.Repeat([]byte("]"), 200)) + `}`, false},
}

// same compares what Decode accepts with what package json makes of it.
func same(t *testing.T, data []byte) bool {
	t.Helper()
	var got, want kinds
	if !plainjson.Decode(data, &got) {
		return false
	}
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatalf("%q: decoded, and package json says: %v", data, err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%q: %+v, package json has %+v", data, got, want)
	}
	return true
}

func TestDecode(t *testing.T) {
	for _, test := range seeds {
		if got := same(t, []byte(test.text)); got != test.plain {
			t.Errorf("%s: plain %v, want %v", test.text, got, test.plain)
		}
	}
	if plainjson.Decode([]byte(`{}`), kinds{}) || plainjson.Decode([]byte(`{}`), nil) {
		t.Error("decoded into what is no pointer")
	}
	var text struct {
		N int `json:"n,string"`
	}
	if plainjson.Decode([]byte(`{"n":"1"}`), &text) {
		t.Error("an option that is not known")
	}
}

func FuzzDecode(f *testing.F) {
	for _, test := range seeds {
		f.Add([]byte(test.text))
	}
	f.Fuzz(func(t *testing.T, data []byte) { same(t, data) })
}

type itself struct{ X int }

func (itself) MarshalJSON() ([]byte, error) { return []byte(`"itself"`), nil }

func TestEncode(t *testing.T) {
	mode := uint32(0o644)
	for _, test := range []struct {
		value any
		plain bool
	}{
		{kinds{}, true},
		{&kinds{Name: "a b", Yes: true, Small: -1, Mode: &mode, List: []string{"x", ""}, Nested: []*kinds{nil, {}}, Untagged: 7, private: 1}, true},
		{kinds{Labels: map[string]string{"b": "1", "a": "2"}, Rates: []rate{{base{1}, 2}}}, true},
		{struct {
			At   time.Time
			Own  itself
			Own2 *itself
			Nil  *itself
		}{At: time.Unix(1, 5).UTC(), Own2: &itself{}}, true},
		{kinds{Name: "<"}, false},
		{kinds{Name: "\n"}, false},
		{kinds{Name: "é"}, false},
		{kinds{Bytes: []byte("x")}, false},
		{kinds{Any: 1}, false},
		{1.5, false},
		{nil, false},
		{map[int]string{1: "x"}, false},
	} {
		got, ok := plainjson.Encode(test.value)
		if ok != test.plain {
			t.Errorf("%+v: plain %v, want %v", test.value, ok, test.plain)
		}
		if want, err := json.Marshal(test.value); ok && (err != nil || !bytes.Equal(got, want)) {
			t.Errorf("%+v: %s, package json has %s, %v", test.value, got, want, err)
		}
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("name", true, int8(1), "key", uint64(3))
	f.Fuzz(func(t *testing.T, name string, yes bool, small int8, key string, n uint64) {
		v := kinds{Name: name, Yes: yes, Small: small, Labels: map[string]string{key: name, name: key}, Rates: []rate{{base{int64(n)}, n}}}
		got, ok := plainjson.Encode(v)
		if want, err := json.Marshal(v); ok && (err != nil || !bytes.Equal(got, want)) {
			t.Fatalf("%s, package json has %s, %v", got, want, err)
		}
	})
}
