package main

import (
	"strings"

	"github.com/wherry-run/wherry/cmd/internal/daemon"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// configuration is wherry.yaml(5).
func (b book) configuration() string {
	p := &page{}
	p.header(b, "wherry.yaml", "5", "configuration of the wherry daemon")
	p.section("DESCRIPTION")
	p.text(`The daemon reads ` + daemon.DefaultConfig + `, which need not be there: every key has a default. It is strict: an unknown key or a wrong value is an error with its line and column, and nothing of the file is used.

"wherry ctl reload" and SIGHUP read it again, change nothing if there is a mistake, and say what needs a restart. Flags of wherry-daemon(1) go over it.

Secrets stand in files that this one names, and are read at every use.`)
	all, rules := daemon.Keys()
	p.section("KEYS")
	p.text("A dot stands for a map within a map. What follows a key is its default.")
	keys(p, all)
	p.section("RULES OF A POLICY")
	p.text("registries.HOST.policy is a word or a list of rules. The first rule that matches decides; what none matches is accepted.")
	keys(p, rules)
	p.section("EXAMPLE")
	p.example(`registries:
  docker.io:
    mirrors: [mirror.example.com]
    credentials: {username: deploy, password_file: /etc/wherry/hub}
network: {subnet: 10.88.0.0/16}
gc: {high: 85%, low: 80%}`)
	p.seeAlso([]string{"wherry-daemon(1)", "wherry-ctl-reload(1)", "wherry-unit(5)"})
	return p.String()
}

func keys(p *page, list []daemon.Key) {
	for _, k := range list {
		p.item(bold(k.Name), k.Default)
	}
}

// unit is wherry-unit(5).
func (b book) unit() string {
	p := &page{}
	p.header(b, "wherry-unit", "5", "a unit file of wherry: what should run")
	p.section("EXAMPLE")
	p.example(`# web.yaml
image: nginx:1.27
ports: ["8080:80"]
resources: {limits: {memory: 256MiB, cpus: 0.5, pids: 128}}
volumes: ["content:/usr/share/nginx/html:ro"]
depends_on: [db]
restart_policy: {condition: any, delay: 100ms, max_delay: 1m}`)
	p.section("DESCRIPTION")
	p.text(`A unit file declares one unit in YAML. "wherry ctl apply FILE" makes it so; a file in /etc/wherry/units is applied as soon as it is there, and whenever it changes. It is strict: an unknown key, a wrong type or an unset parameter is an error with file, line, column and the nearest key, and what runs is not touched.

A key that is not listed is an error, unless it begins with x-. The words are those of the Compose Specification where it has one. Sizes are written 512MiB, durations 1m30s.`)
	p.section("KEYS")
	var pending []string
	unitKeys(p, unit.Keys(), "", &pending)
	if len(pending) > 0 {
		p.section("NOT SUPPORTED YET")
		p.text(strings.Join(pending, ", ") + ".")
	}
	p.seeAlso([]string{"wherry-ctl-validate(1)", "wherry-ctl-apply(1)", "wherry-ctl-diff(1)", "wherry.yaml(5)"})
	return p.String()
}

// unitKeys writes the keys of a map and those below them.
func unitKeys(p *page, list []unit.Key, prefix string, pending *[]string) {
	for _, k := range list {
		if k.Later {
			*pending = append(*pending, prefix+k.Name)
			continue
		}
		text := k.Text
		if k.Default != "" {
			text += " Default: " + k.Default + "."
		}
		p.item(bold(prefix+k.Name)+" ("+escape(k.Type)+")", text)
		unitKeys(p, k.Keys, unit.Below(prefix, k), pending)
	}
}
