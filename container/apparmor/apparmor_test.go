package apparmor

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// The compiled profile is of the text beside it.
func TestCompiledIsUpToDate(t *testing.T) {
	text, err := os.ReadFile("duplex-default.profile")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("duplex-default.sum")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	if !strings.HasPrefix(string(want), hex.EncodeToString(sum[:])) {
		t.Error("duplex-default.profile was changed: run go generate ./container/apparmor")
	}
	if !bytes.Contains(compiled, []byte(Name)) {
		t.Errorf("%d bytes without the profile's name", len(compiled))
	}
}
