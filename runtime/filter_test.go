package runtime_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime/spec"
)

// What the kernel has loaded is what was compiled, in the init and in its program; and it is
// as good as what libcontainer compiles and loads by itself, as it does without no_new_privs.
func TestFilterReadBack(t *testing.T) {
	attacked(t, func(t *testing.T, w *world, mapped bool) {
		c := w.attack(mapped, spec.Container{}, "sleep", "1000")
		st := w.start(c)
		files, _ := filepath.Glob(filepath.Join(w.run, "seccomp", "*.bpf"))
		if len(files) != 1 {
			t.Fatalf("compiled filters: %v", files)
		}
		want, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		pids := append(children(t, st.Pid), st.Pid)
		if len(pids) != 2 {
			t.Fatalf("processes: %v", pids)
		}
		for _, pid := range pids {
			got, err := readFilter(pid)
			if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIO) {
				w.kill(c)
				t.Skip("the kernel does not give filters back here: ", err)
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("process %d: %d bytes, compiled %d: %v", pid, len(got), len(want), err)
			}
		}
		w.kill(c)

		c = w.attack(mapped, spec.Container{NewPrivileges: true}, "sleep", "1000")
		st = w.start(c)
		got, err := readFilter(st.Pid)
		if err != nil {
			t.Fatal(err)
		}
		sameAnswers(t, got, want)
		w.kill(c)
	})
}

// sameAnswers runs both programs on every call there is. They differ in how the head is put
// together that answers ENOSYS to newer calls, and in nothing behind it.
func sameAnswers(t *testing.T, a, b []byte) {
	t.Helper()
	const head = 16 * 8 // a little more than it takes
	if len(a) != len(b) || !slices.Equal(a[head:], b[head:]) {
		t.Errorf("libcontainer's own is another program: %d and %d bytes", len(a), len(b))
	}
	vms := [2]*bpf.VM{virtual(t, a), virtual(t, b)}
	for _, arch := range []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64} {
		for nr := range uint32(1200) {
			for _, bit := range []uint32{0, 0x40000000} { // x32
				call := make([]byte, 64)
				binary.BigEndian.PutUint32(call, nr|bit) // as the virtual machine reads it
				binary.BigEndian.PutUint32(call[4:], arch)
				var answers [2]int
				for i, vm := range vms {
					var err error
					if answers[i], err = vm.Run(call); err != nil {
						t.Fatal(err)
					}
				}
				if answers[0] != answers[1] {
					t.Errorf("call %d of %#x: libcontainer's filter says %#x, ours %#x", nr|bit, arch, answers[0], answers[1])
				}
			}
		}
	}
}

func virtual(t *testing.T, program []byte) *bpf.VM {
	t.Helper()
	var raw []bpf.RawInstruction
	for i := 0; i+8 <= len(program); i += 8 {
		raw = append(raw, bpf.RawInstruction{Op: binary.NativeEndian.Uint16(program[i:]), Jt: program[i+2], Jf: program[i+3], K: binary.NativeEndian.Uint32(program[i+4:])})
	}
	instructions, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("not a BPF program")
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func children(t *testing.T, pid int) []int {
	t.Helper()
	var list []int
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		if hasParent(f, pid) {
			var n int
			for _, c := range filepath.Base(filepath.Dir(f)) {
				n = n*10 + int(c-'0')
			}
			list = append(list, n)
		}
	}
	return list
}

// readFilter reads a process's first filter, in the bytes that seccomp(2) takes.
func readFilter(pid int) ([]byte, error) {
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	if err := unix.PtraceAttach(pid); err != nil {
		return nil, err
	}
	defer unix.PtraceDetach(pid)
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
		return nil, err
	}
	type instruction struct {
		op     uint16
		jt, jf uint8
		k      uint32
	}
	program := make([]instruction, 4096)
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(pid), 0, uintptr(unsafe.Pointer(&program[0])), 0, 0)
	if errno != 0 {
		return nil, errno
	}
	var b []byte
	for _, i := range program[:n] {
		b = binary.NativeEndian.AppendUint16(b, i.op)
		b = append(b, i.jt, i.jf)
		b = binary.NativeEndian.AppendUint32(b, i.k)
	}
	return b, nil
}

// hasParent tells whether the process of a stat file is a child of pid.
func hasParent(file string, pid int) bool {
	b, err := os.ReadFile(file) // it has ended
	if err != nil {
		return false
	}
	var parent int
	end := slices.Index(b, ')')
	for i := end; i >= 0 && i < len(b); i++ {
		if b[i] == ')' {
			end = i
		}
	}
	for _, c := range b[min(end+4, len(b)):] {
		if c == ' ' {
			break
		}
		parent = parent*10 + int(c-'0')
	}
	return parent == pid
}
