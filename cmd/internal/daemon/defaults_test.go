package daemon

import (
	"reflect"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/supervisor"
	"github.com/wherry-run/wherry/supervisor/unit"
)

func TestDefaultsOfUnits(t *testing.T) {
	c := defaults(noEnv)
	text := "defaults: {userns: required, shm_size: 1GiB, ulimits: {nofile: 1024, core: \"0:unlimited\", as: {soft: 1, hard: 2}}}\n"
	if err := parseConfig("wherry.yaml", []byte(text), &c); err != nil {
		t.Fatal(err)
	}
	want := supervisor.Defaults{UserNS: "required", ShmSize: 1 << 30, Ulimits: []unit.Ulimit{
		{Name: "as", Soft: 1, Hard: 2}, {Name: "core", Soft: 0, Hard: -1}, {Name: "nofile", Soft: 1024, Hard: 1024}}}
	if !reflect.DeepEqual(c.Defaults, want) || !reflect.DeepEqual(c.Options("").Defaults, want) {
		t.Errorf("%+v", c.Defaults)
	}
	for text, want := range map[string]string{
		"defaults: {userns: maybe}":            "unknown",
		"defaults: {ulimits: {nofiles: 3}}":    "nofiles",
		"defaults: {ulimits: {core: x}}":       "not a limit",
		"defaults: {ulimits: {core: {}}}":      "both soft and hard",
		"defaults: {shm_size: much}":           "not a size",
		"defaults: {ulimits: {core: {x: 1}}}":  "unknown key",
		"defaults: {ulimits: [nofile]}":        "map",
		"defaults: {restart_policy: {a: b}}":   "not supported yet",
		"defaults: {ulimits: {nofile: '5:3'}}": "above",
	} {
		c := defaults(noEnv)
		if err := parseConfig("wherry.yaml", []byte(text), &c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
