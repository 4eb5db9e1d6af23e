package console_test

import (
	"strings"
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/console"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

func TestAttacks(t *testing.T) {
	v.Attacks(t, func(testing.TB) virtio.Device {
		return console.New(console.Options{In: strings.NewReader("input"), Cols: 80, Rows: 24})
	}, []int{tx}, func(_ testing.TB, d *v.Driver) {
		print(d, "still alive")
		d.Ring(tx).Wait()
	})
}
