package unit

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. It is shown as the largest unit that has no
// fraction, "512MiB".
type Size int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// ParseSize reads "512MiB", "512M" or "512m", which all mean 512 * 2^20, as
// in Docker. A number without a unit is an error.
func ParseSize(text string) (int64, error) {
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	suffix := strings.ToLower(text[len(number):])
	number = strings.TrimSpace(number)
	if number == "" || strings.Trim(number, "0123456789.") != "" {
		return 0, faultf("write it like 512MiB", "%q is not a size", text)
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, faultf("write it like 512MiB", "%q is not a size", text)
	}
	factor := int64(0)
	switch suffix {
	case "":
		return 0, faultf("write "+number+"MiB or "+number+"B", "%q has no unit", text)
	case "b":
		factor = 1
	}
	for _, u := range sizeUnits {
		letter := strings.ToLower(u.name[:1])
		if suffix == letter || suffix == letter+"b" || suffix == letter+"ib" {
			factor = u.bytes
		}
	}
	if factor == 0 {
		return 0, faultf("use B, KiB, MiB, GiB or TiB", "%q has an unknown unit", text)
	}
	bytes := value * float64(factor)
	if bytes >= math.MaxInt64/2 {
		return 0, faultf("", "%q is too large", text)
	}
	return int64(bytes), nil
}

// String gives "1m30s", without the zeros that time.Duration adds: "1m".
func (d Duration) String() string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// MarshalText gives String's form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	got, err := ParseDuration(string(text))
	*d = got
	return err
}

// ParseDuration reads "1m30s". A number without a unit is an error, except 0.
func ParseDuration(text string) (Duration, error) {
	if d, err := time.ParseDuration(text); err == nil {
		if d < 0 {
			return 0, faultf("", "%q is negative", text)
		}
		return Duration(d), nil
	}
	if text != "" && strings.Trim(text, "0123456789.") == "" {
		return 0, faultf("write "+text+"s", "%q has no unit", text)
	}
	return 0, faultf("write it like 1m30s; the units are ms, s, m and h", "%q is not a duration", text)
}
