package unit_test

import (
	"fmt"

	"github.com/wherry-run/wherry/supervisor/unit"
)

func ExampleParse() {
	u, _, err := unit.Parse("web.yaml", []byte(`
image: nginx:1.27
ports: ["8080:80"]
resources: {limits: {memory: 512MiB}}
`), unit.Options{})
	fmt.Println(u.Name, u.Ports[0], unit.Size(u.Containers[0].Limits.Memory), err)

	_, _, err = unit.Parse("web.yaml", []byte("image: nginx\ncomand: [nginx]\nreplicas: two\n"), unit.Options{})
	fmt.Println(err)
	// Output:
	// web 8080:80 512MiB <nil>
	// web.yaml:2:1: unknown key "comand", did you mean "command"?
	// web.yaml:3:11: replicas: wants a whole number, not "two"
}

func ExampleDiff() {
	old, _, _ := unit.Parse("web.yaml", []byte("image: nginx:1.27\n"), unit.Options{})
	new, _, _ := unit.Parse("web.yaml", []byte("image: nginx:1.28\nreplicas: 2\n"), unit.Options{})
	for _, c := range unit.Diff(old, new) {
		fmt.Printf("%s: %s -> %s\n", c.Path, c.Old, c.New)
	}
	// Output:
	// replicas: 1 -> 2
	// containers.app.image: nginx:1.27 -> nginx:1.28
}
