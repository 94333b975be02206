package integration

import (
	"os"
	"sync"
	"testing"

	"github.com/wherry-run/wherry/integration/harness"
)

var shared struct {
	sync.Once
	registry *harness.Registry
}

// registry is one real registry with all test images, for the tests that do
// not hurt it.
func registry(t testing.TB) *harness.Registry {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	shared.Do(func() { shared.registry = harness.StartSharedRegistry(t, "busybox", "nginx", "redis") })
	if shared.registry == nil {
		t.Skip("the registry did not start: see the first test that needed it")
	}
	return shared.registry
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.registry != nil {
		shared.registry.Close()
	}
	os.Exit(code)
}
