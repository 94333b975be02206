//go:build race

package layer

// underRace: everything takes several times as long.
const underRace = true
