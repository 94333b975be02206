package unit

import "testing"

func TestRegistryAuthCheck(t *testing.T) {
	for _, a := range []RegistryAuth{{}, {Username: "me", PasswordFile: "/p"}, {TokenFile: "/t"}, {DockerConfig: "/c"}, {Helper: "ecr-login"}} {
		if err := a.Check(); err != nil {
			t.Errorf("%+v: %v", a, err)
		}
	}
	for _, a := range []RegistryAuth{{Username: "me"}, {PasswordFile: "/p"}, {TokenFile: "t"}, {Helper: "../../bin/sh"}, {Helper: ".."}, {Helper: "x", TokenFile: "/t"}} {
		if a.Check() == nil {
			t.Errorf("%+v is accepted", a)
		}
	}
}
