package network

import (
	"testing"
)

// A run that ends has its network taken away by who sees the end, and by who removes the run. The address, and with it the
// device's name, may be another run's as soon as one of them is through: the other one leaves that alone.
func TestSlowDetachLeavesTheNextRunAlone(t *testing.T) {
	w := newWorld(t)
	m := w.open(Options{})
	before := w.attach(m, "web.1-aaaa").lease
	l, device, err := m.withdraw("web.1-aaaa")
	if err != nil || device == 0 {
		t.Fatal(device, err)
	}
	if err := m.Detach(background, "web.1-aaaa"); err != nil {
		t.Fatal(err)
	}
	next := w.attach(m, "web.1-bbbb").lease
	if next.Device != before.Device {
		t.Fatalf("device %s, before %s", next.Device, before.Device)
	}
	if err := removeDeviceApart(w.host, device); err != nil {
		t.Fatal(err)
	}
	if err := m.forget(*l); err != nil {
		t.Fatal(err)
	}
	if err := m.Repair(background, []string{"web.1-bbbb"}); err != nil {
		t.Errorf("of the next run: %v", err)
	}
	if len(m.Leases()) != 1 {
		t.Errorf("leases: %+v", m.Leases())
	}
}
