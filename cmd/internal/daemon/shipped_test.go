package daemon

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/wherry-run/wherry/supervisor/unit"
)

// What the package puts into /etc/wherry changes nothing as it is, and is valid
// with every line of it in force.
func TestShippedConfiguration(t *testing.T) {
	raw, err := os.ReadFile("../../../scripts/package/wherry.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c := defaults(noEnv)
	if err := parseConfig("wherry.yaml", raw, &c); err != nil {
		t.Errorf("as shipped: %v", err)
	}
	// Comments have a blank behind their sign, or two where a map goes on.
	text := regexp.MustCompile(`(?m)^#([a-z]|  )`).ReplaceAllString(string(raw), "$1")
	text = regexp.MustCompile(`(?m)^ *ca:.*\n`).ReplaceAllString(text, "") // a file that is not here
	c = defaults(noEnv)
	if err := parseConfig("wherry.yaml", []byte(text), &c); err != nil {
		t.Errorf("with every line in force: %v\n%s", err, text)
	}
	if c.LogTotal != 10<<30 || c.GC.MinAge == 0 || len(c.Registries) != 2 {
		t.Errorf("with every line in force: %+v", c)
	}
	for _, k := range keys {
		if !k.later && k.name != "docker_config" && k.name != "socket" && k.name != "keeper" && k.name != "cgroup_parent" &&
			!strings.Contains(text, "\n"+k.name+":") {
			t.Errorf("%s is not shown", k.name)
		}
	}
}

func TestShippedUnit(t *testing.T) {
	const file = "../../../scripts/package/examples/web.yaml"
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	u, _, err := unit.Parse(file, raw, unit.Options{})
	if err != nil || u.Name != "web" {
		t.Errorf("%s: %v", u.Name, err)
	}
}
