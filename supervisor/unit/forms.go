package unit

import "strings"

// The forms of names, checked by hand: every call of the command line loads
// this package, and compiling bounded repeats as regular expressions would
// take longer than all else that it does before its work begins. The test has
// the expressions, and compares.

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isAlnum(c byte) bool { return isDigit(c) || isLower(c) || 'A' <= c && c <= 'Z' }
func isHex(c byte) bool   { return isDigit(c) || 'a' <= c && c <= 'f' }
func isWord(c byte) bool  { return isAlnum(c) || c == '_' || c == '.' || c == '-' }

// all tells whether text is one or more characters of a kind.
func all(text string, kind func(byte) bool) bool {
	for i := range len(text) {
		if !kind(text[i]) {
			return false
		}
	}
	return text != ""
}

// isName is the form of a unit's name: [a-z0-9][a-zA-Z0-9_.-]*
func isName(text string) bool {
	return all(text, isWord) && (isDigit(text[0]) || isLower(text[0]))
}

// isRunName tells whether text ends like the name of an instance, NAME.N, or
// of a run, NAME.N-ID: \.[0-9]+(-[a-zA-Z0-9]+)?$
func isRunName(text string) bool {
	dot := strings.LastIndexByte(text, '.')
	if dot < 0 {
		return false
	}
	n, id, hyphen := strings.Cut(text[dot+1:], "-")
	return all(n, isDigit) && (!hyphen || all(id, isAlnum))
}

// isVolumeName is [a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}
func isVolumeName(text string) bool {
	return len(text) <= 255 && all(text, isWord) && isAlnum(text[0])
}

// isUser is USER or USER:GROUP, by name or number.
func isUser(text string) bool {
	user, group, colon := strings.Cut(text, ":")
	return isUserName(user) && (!colon || isUserName(group))
}

// isUserName is [a-zA-Z0-9_][a-zA-Z0-9_.@-]*\$?
func isUserName(text string) bool {
	text = strings.TrimSuffix(text, "$")
	return all(text, func(c byte) bool { return isWord(c) || c == '@' }) && (isAlnum(text[0]) || text[0] == '_')
}

// isImage is a reference as registries know it: [HOST/]PATH[:TAG][@DIGEST].
func isImage(ref string) bool {
	ref, digest, at := strings.Cut(ref, "@")
	if at && !isDigest(digest) {
		return false
	}
	if isRepository(ref) {
		return true
	}
	host, rest, slash := strings.Cut(ref, "/")
	return slash && isHost(host) && isRepository(rest)
}

// isDigest is sha256:[0-9a-f]{64}
func isDigest(text string) bool {
	sum, ok := strings.CutPrefix(text, "sha256:")
	return ok && len(sum) == 64 && all(sum, isHex)
}

// isHost is a name or an address, an IPv6 one in brackets, and maybe a port.
func isHost(text string) bool {
	if rest, ok := strings.CutPrefix(text, "["); ok {
		address, port, ok := strings.Cut(rest, "]")
		return ok && all(address, isIPv6) && (port == "" || port[0] == ':' && all(port[1:], isDigit))
	}
	host, port, colon := strings.Cut(text, ":")
	return all(host, func(c byte) bool { return isAlnum(c) || c == '.' || c == '-' }) && (!colon || all(port, isDigit))
}

func isIPv6(c byte) bool { return isHex(c) || 'A' <= c && c <= 'F' || c == ':' }

// isRepository is PATH[:TAG].
func isRepository(text string) bool {
	path, tag, colon := strings.Cut(text, ":")
	if colon && (len(tag) > 128 || !all(tag, isWord) || tag[0] == '.' || tag[0] == '-') {
		return false
	}
	for part := range strings.SplitSeq(path, "/") {
		if !isPathPart(part) {
			return false
		}
	}
	return true
}

// isPathPart is [a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*
func isPathPart(text string) bool {
	plain := func(c byte) bool { return isDigit(c) || isLower(c) }
	if text == "" || !plain(text[0]) || !plain(text[len(text)-1]) {
		return false
	}
	separator := ""
	for i := range len(text) {
		if !plain(text[i]) {
			separator += text[i : i+1]
			continue
		}
		if separator != "." && separator != "_" && separator != "__" && strings.Trim(separator, "-") != "" {
			return false
		}
		separator = ""
	}
	return true
}
