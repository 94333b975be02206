package unit

import (
	"strings"
)

// interpolate replaces ${NAME}, ${NAME:-default} and ${NAME:?message}. A bare
// $NAME stays as it is, and $${ gives ${. The int is where in text an error
// stands.
func interpolate(text string, value func(name string) (string, bool)) (string, int, error) {
	if !strings.Contains(text, "${") {
		return text, 0, nil
	}
	var out strings.Builder
	for at := 0; at < len(text); {
		rest := text[at:]
		switch {
		case strings.HasPrefix(rest, "$${"):
			out.WriteString("${")
			at += 3
		case strings.HasPrefix(rest, "${"):
			length := closing(rest)
			switch {
			case length < 0:
				return "", at, faultf("", "more than %d ${ within each other", mostNested)
			case length == 0:
				return "", at, faultf("write $${ for a literal ${", "${ without its }")
			}
			got, err := parameter(rest[2:length-1], value)
			if err != nil {
				return "", at, err
			}
			out.WriteString(got)
			at += length
		default:
			out.WriteByte(text[at])
			at++
		}
	}
	return out.String(), 0, nil
}

// mostNested bounds defaults within defaults: each level reads the rest again.
const mostNested = 16

// closing is the length of the ${...} that text begins with; 0 if it does not
// end, -1 if it is nested too deeply. A default may hold further ones.
func closing(text string) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch {
		case depth > mostNested:
			return -1
		case strings.HasPrefix(text[i:], "$${"):
			i += 2
		case strings.HasPrefix(text[i:], "${"):
			depth++
			i++
		case text[i] == '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return 0
}

// parameter gives what stands for the inside of a ${...}.
func parameter(inside string, value func(string) (string, bool)) (string, error) {
	name := inside[:wordLength(inside)]
	rest := inside[len(name):]
	if name == "" {
		return "", faultf("write $${ for a literal ${", "${%s} has no name", inside)
	}
	got, set := value(name)
	switch {
	case rest == "":
		if !set {
			return "", faultf("write ${"+name+":-value} for a default, or $${ for a literal ${", "parameter %s is not set", name)
		}
		return got, nil
	case strings.HasPrefix(rest, ":-"):
		if got != "" {
			return got, nil
		}
		text, _, err := interpolate(rest[2:], value)
		return text, err
	case strings.HasPrefix(rest, ":?"):
		if got != "" {
			return got, nil
		}
		if rest == ":?" {
			rest = ":?it must be"
		}
		return "", faultf("", "parameter %s is not set: %s", name, rest[2:])
	}
	return "", faultf("only ${NAME}, ${NAME:-default} and ${NAME:?message} are known", "${%s} is not understood", inside)
}

// wordLength is how much of text is a parameter's name.
func wordLength(text string) int {
	for i, r := range text {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return i
		}
	}
	return len(text)
}
