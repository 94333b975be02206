package api

import "strings"

// What logs, exec, attach and cp are aimed at is one word:
//
//	web         the unit, all its instances and their containers
//	web.1       one instance
//	web.1/php   one container of it
//	web/php     that container of every instance; of one that runs, for a single process

// SplitTarget parts a target into what stands before the slash, a unit or an
// instance, and the container's name, which is empty if none is named.
func SplitTarget(target string) (name, container string) {
	name, container, _ = strings.Cut(target, "/")
	return name, container
}

// JoinTarget is the inverse of SplitTarget.
func JoinTarget(name, container string) string {
	if container == "" {
		return name
	}
	return name + "/" + container
}
