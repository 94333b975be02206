package supervisor

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSleepers(t *testing.T) {
	proc := t.TempDir()
	for name, text := range map[string]string{
		"1/stat": "1 (sh) S 0 1 1", "2/stat": "2 (a) D (b) D 1 2", "2/wchan": "folio_wait_bit",
		"3/stat": "3 (dd) D 1 3", "3/wchan": "x", "3/stack": "[<0>] io_schedule+0x46/0x80\n[<0>] folio_wait_bit+0x1/0x2\n",
		"4/stat": "4 (x) D 1", "4/wchan": "0", "5/stat": "cut",
	} {
		file := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		pids []int
		want string
	}{
		{[]int{1, 5, 9}, ""},
		{[]int{1, 2, 3}, "process 2 (a) D (b) is in an uninterruptible sleep at folio_wait_bit"},
		{[]int{3}, "process 3 (dd) is in an uninterruptible sleep at io_schedule < folio_wait_bit"},
		{[]int{4}, "process 4 (x) is in an uninterruptible sleep"},
	} {
		if got := sleepers(proc, c.pids); got != c.want {
			t.Errorf("%v: %q, want %q", c.pids, got, c.want)
		}
	}
}
