package runtime

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestCodeMappings(t *testing.T) {
	const smaps = `00400000-01000000 r-xp 00000000 fe:00 1234                               /usr/bin/wherry
Rss:               12288 kB
Anonymous:             0 kB
01000000-01800000 r--p 00c00000 fe:00 1234                               /usr/bin/wherry
Anonymous:             0 kB
01800000-01900000 r--p 01400000 fe:00 1234                               /usr/bin/wherry
Anonymous:             8 kB
01900000-01a00000 rw-p 01500000 fe:00 1234                               /usr/bin/wherry
Anonymous:             0 kB
02000000-03000000 r--s 00000000 fe:00 77                                 /var/lib/wherry/state.db
Anonymous:             0 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Anonymous:          4096 kB
7ffd1000-7ffd3000 r-xp 00000000 00:00 0                                  [vdso]
Anonymous:             0 kB
`
	want := []mapping{{0x400000, 0x1000000}, {0x1000000, 0x1800000}}
	if got := codeMappings(strings.NewReader(smaps)); !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

// TestDropCode: we run on, with all that the program says.
func TestDropCode(t *testing.T) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if len(codeMappings(f)) == 0 {
		t.Error("our own code is not found")
	}
	dropCode()
	if strings.Repeat("a", 3) != "aaa" {
		t.Error("gone")
	}
}
