package cgroup

import "testing"

func TestParseStall(t *testing.T) {
	tests := []struct {
		text string
		want Stall
		ok   bool
	}{
		{"some avg10=1.50 avg60=0.25 avg300=0.00 total=123\nfull avg10=0.50 avg60=0.10 avg300=0.00 total=45\n",
			Stall{1.5, 0.25, 123, 0.5, 0.1, 45}, true},
		{"some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n", Stall{SomeTotal: 7}, true},
		{"", Stall{}, true},
		{"some avg10=much avg60=0.00\n", Stall{}, false},
		{"full total=-1\n", Stall{}, false},
	}
	for _, tt := range tests {
		got, err := parseStall(tt.text)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("parseStall(%q) = %+v, %v, want %+v", tt.text, got, err, tt.want)
		}
	}
}

func TestPressureOfHost(t *testing.T) {
	p, err := Group{Path: "/no-such-group-of-wherry"}.Pressure()
	if err != nil {
		t.Skipf("no PSI here: %v", err)
	}
	if !p.Host {
		t.Errorf("pressure of a group that is not there: %+v, want the host's", p)
	}
}
