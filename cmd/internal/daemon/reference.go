package daemon

// Key is a key of wherry.yaml, with the path that leads to it, and its default in words.
type Key struct{ Name, Default string }

// Keys are the keys of wherry.yaml that this version reads; rules are those of
// a rule in registries.HOST.policy.
func Keys() (all, rules []Key) {
	return public(below("", keys)), public(below("", ruleKeys))
}

func public(lines []line) []Key {
	out := make([]Key, len(lines))
	for i, l := range lines {
		out[i] = Key{Name: l.name, Default: l.missing}
	}
	return out
}
