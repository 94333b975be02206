package auth

import (
	"maps"
	"slices"
)

// DockerConfigHosts are the registries that a Docker config file has something
// for, by host. A file that cannot be read names none: finding credentials says why.
func DockerConfigHosts(path string) []string {
	if path == "" {
		return nil
	}
	b, _, err := readFile(path, 4<<20)
	var f dockerFile
	if err != nil || f.parse(b) != nil {
		return nil
	}
	hosts := map[string]bool{}
	for h := range f.CredHelpers {
		hosts[hostOfKey(h)] = true
	}
	for k := range f.Auths {
		hosts[hostOfKey(k)] = true
	}
	return slices.Sorted(maps.Keys(hosts))
}

func hostOfKey(key string) string {
	for i, r := range plainKey(key) {
		if r == '/' {
			return plainKey(key)[:i]
		}
	}
	return plainKey(key)
}
