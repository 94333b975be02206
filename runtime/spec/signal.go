package spec

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// defaultStopSignal is what a program gets that says nothing else.
const defaultStopSignal = "SIGTERM"

// Real-time signals as the C library numbers them: it keeps 32 and 33.
const (
	sigRTMin = 34
	sigRTMax = 64
)

func stopSignal(img Image, c Container) (string, error) {
	name := c.StopSignal
	if name == "" {
		name = img.StopSignal
	}
	if name == "" {
		return defaultStopSignal, nil
	}
	sig, err := ParseSignal(name)
	if err != nil {
		return "", fmt.Errorf("stop signal %w", err)
	}
	return sig, nil
}

// ParseSignal turns "SIGTERM", "term", "15" and "SIGRTMIN+3" into a signal's
// name. Real-time signals, which have none, come as their number.
func ParseSignal(s string) (string, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > sigRTMax {
			return "", fmt.Errorf("%q: a signal's number is from 1 to %d", s, sigRTMax)
		}
		return signalName(n), nil
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n := unix.SignalNum(name); n != 0 {
		return signalName(int(n)), nil
	}
	if n, ok := realTime(name); ok {
		return strconv.Itoa(n), nil
	}
	return "", fmt.Errorf("%q: no such signal%s", s, nearMiss(name, signalNames()))
}

func signalName(n int) string {
	if name := unix.SignalName(unix.Signal(n)); name != "" {
		return name
	}
	return strconv.Itoa(n)
}

// realTime knows SIGRTMIN, SIGRTMIN+n, SIGRTMAX and SIGRTMAX-n.
func realTime(name string) (int, bool) {
	base, rest := sigRTMin, strings.TrimPrefix(name, "SIGRTMIN")
	if rest == name {
		base, rest = sigRTMax, strings.TrimPrefix(name, "SIGRTMAX")
	}
	if rest == name {
		return 0, false
	}
	offset := 0
	if rest != "" {
		var err error
		if offset, err = strconv.Atoi(rest); err != nil || (rest[0] != '+' && rest[0] != '-') {
			return 0, false
		}
	}
	n := base + offset
	return n, n >= sigRTMin && n <= sigRTMax
}

func signalNames() []string {
	var names []string
	for n := 1; n < 32; n++ {
		if name := unix.SignalName(unix.Signal(n)); name != "" {
			names = append(names, name)
		}
	}
	return names
}
