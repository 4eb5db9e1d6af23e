package balloon_test

import (
	"context"
	"errors"
	"testing"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/balloon"
	v "github.com/duplex-run/duplex/vmm/virtio/virtqtest"
)

// The size that is asked for and the driver's buffer for statistics go along.
func TestMove(t *testing.T) {
	dev, d := startStats(t)
	dev.Resize(9)
	d.Transport.Write(v.RegConfig+4, []byte{7, 0, 0, 0})
	d.Kick(statsQ) // the device holds the buffer now
	next := balloon.New(balloon.Options{})
	d.Move(next)
	if target, actual := next.Pages(); target != 9 || actual != 7 {
		t.Errorf("%d pages asked for, %d there", target, actual)
	}
	got := ask(context.Background(), next)
	d.Ring(statsQ).Wait() // the device gives the buffer back: it asks
	d.Ring(statsQ).Add(d.Out(stats(4, 5)))
	d.Kick(statsQ)
	if a := <-got; a.err != nil || a.s.Free != 5 {
		t.Errorf("got %+v, %v", a.s, a.err)
	}
	works(t, d)
	for name, own := range map[string][]byte{
		"short": make([]byte, 11), "held twice": {8: 2, 11: 0}, "held without a queue": {8: 1, 11: 0},
	} {
		if err := balloon.New(balloon.Options{}).Restore(own, nil); !errors.Is(err, virtio.ErrOwnState) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
