package keeper

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/wherry-run/wherry/runtime/internal/bundle"
)

// filterRef names a compiled filter in a container's state.
type filterRef struct {
	Hash  string `json:"hash,omitempty"` // empty: none
	Flags uint   `json:"flags,omitempty"`
}

// filterFormat is part of every hash: raise it when compile gives something
// else for the same profile.
const filterFormat = 1

// filters compiles seccomp profiles, each once: libseccomp needs 15 to 20 ms
// for Docker's, a third of a whole start, and loading the result takes 0.4 ms.
// The compiled programs lie in a folder that a reboot empties.
type filters struct {
	dir string

	mu    sync.Mutex // also: one compilation at a time
	known map[string]bool
}

func newFilters(dir string) *filters { return &filters{dir: dir, known: map[string]bool{}} }

// get returns the filter of profile, compiling it if nobody has yet. No
// profile gives a zero reference.
func (f *filters) get(profile *specs.LinuxSeccomp) (filterRef, error) {
	if profile == nil {
		return filterRef{}, nil
	}
	flags, err := filterFlags(profile)
	if err != nil {
		return filterRef{}, err
	}
	hash, err := filterHash(profile)
	if err != nil {
		return filterRef{}, err
	}
	ref := filterRef{Hash: hash, Flags: flags}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known[hash] {
		return ref, nil
	}
	if _, err := os.Stat(f.path(ref)); err != nil {
		program, err := compile(profile, f.dir)
		if err != nil {
			return filterRef{}, err
		}
		if err := bundle.WriteFile(f.path(ref), program, 0o400); err != nil {
			return filterRef{}, err
		}
	}
	f.known[hash] = true
	return ref, nil
}

func (f *filters) path(ref filterRef) string { return filepath.Join(f.dir, ref.Hash+".bpf") }

// open returns the compiled program, nil for no filter.
func (f *filters) open(ref filterRef) (*os.File, error) {
	if ref.Hash == "" {
		return nil, nil
	}
	file, err := os.Open(f.path(ref))
	if err != nil {
		return nil, fmt.Errorf("seccomp filter: %w", err)
	}
	return file, nil
}

func filterHash(profile *specs.LinuxSeccomp) (string, error) {
	b, err := json.Marshal(profile)
	if err != nil {
		return "", fmt.Errorf("seccomp: %w", err)
	}
	major, minor, micro := libseccomp.GetLibraryVersion()
	h := sha256.New()
	fmt.Fprintf(h, "%d %d.%d.%d ", filterFormat, major, minor, micro)
	h.Write(b)
	return hex.EncodeToString(h.Sum(nil))[:32], nil
}

// filterFlags are those of seccomp(2). As in runc, a profile that says nothing
// about flags leaves speculation alone, which costs nothing on current CPUs.
func filterFlags(profile *specs.LinuxSeccomp) (uint, error) {
	if profile.Flags == nil {
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil
	}
	var flags uint
	for _, f := range profile.Flags {
		switch f {
		case specs.LinuxSeccompFlagLog:
			flags |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case "SECCOMP_FILTER_FLAG_TSYNC": // the init has one thread
		default:
			return 0, fmt.Errorf("seccomp: flag %s is not supported", f)
		}
	}
	return flags, nil
}

// selfLoadable says whether the container's init may load the filter itself.
// Without no_new_privs that takes CAP_SYS_ADMIN, which is gone by then, and a
// notifying filter gives a descriptor that has to be passed on: both are left
// to libcontainer.
func selfLoadable(spec *specs.Spec) bool {
	if spec.Linux == nil || spec.Linux.Seccomp == nil || !spec.Process.NoNewPrivileges {
		return false
	}
	p := spec.Linux.Seccomp
	notify := func(s specs.LinuxSyscall) bool { return s.Action == specs.ActNotify }
	return p.ListenerPath == "" && p.DefaultAction != specs.ActNotify && !slices.ContainsFunc(p.Syscalls, notify)
}

// compile turns a profile into the bytes that seccomp(2) takes.
func compile(profile *specs.LinuxSeccomp, dir string) ([]byte, error) {
	filter, err := buildFilter(profile)
	if err != nil {
		return nil, fmt.Errorf("seccomp: %w", err)
	}
	defer filter.Release()
	program, err := export(filter, dir)
	if err != nil {
		return nil, fmt.Errorf("seccomp: export: %w", err)
	}
	head, err := enosysHead(profile)
	if err != nil {
		return nil, fmt.Errorf("seccomp: %w", err)
	}
	var b []byte
	for _, i := range head {
		b = binary.NativeEndian.AppendUint16(b, i.Op)
		b = append(b, i.Jt, i.Jf)
		b = binary.NativeEndian.AppendUint32(b, i.K)
	}
	return append(b, program...), nil
}

// export goes over a file: libseccomp before 2.6 cannot write to memory.
func export(filter *libseccomp.ScmpFilter, dir string) ([]byte, error) {
	tmp, err := os.CreateTemp(dir, ".export.*")
	if err != nil {
		return nil, err
	}
	defer tmp.Close()
	if err := os.Remove(tmp.Name()); err != nil {
		return nil, err
	}
	if err := filter.ExportBPF(tmp); err != nil {
		return nil, err
	}
	st, err := tmp.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, st.Size())
	_, err = tmp.ReadAt(b, 0)
	return b, err
}

func buildFilter(profile *specs.LinuxSeccomp) (*libseccomp.ScmpFilter, error) {
	def, err := action(profile.DefaultAction, profile.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	filter, err := libseccomp.NewFilter(def)
	if err != nil {
		return nil, err
	}
	if err := fillFilter(filter, profile, def); err != nil {
		filter.Release()
		return nil, err
	}
	return filter, nil
}

func fillFilter(filter *libseccomp.ScmpFilter, profile *specs.LinuxSeccomp, def libseccomp.ScmpAction) error {
	for _, a := range profile.Architectures {
		arch, err := scmpArch(a)
		if err != nil {
			return err
		}
		if err := filter.AddArch(arch); err != nil {
			return fmt.Errorf("architecture %s: %w", a, err)
		}
	}
	// A binary tree instead of a list; libseccomp up to 2.5.4 mishandles it for filters of a few rules.
	if len(profile.Syscalls) > 0 && countNames(profile) > 32 {
		filter.SetOptimize(2) // libseccomp before 2.5 does without
	}
	if err := filter.SetNoNewPrivsBit(false); err != nil {
		return err
	}
	for _, s := range profile.Syscalls {
		if err := addRules(filter, s, def); err != nil {
			return err
		}
	}
	return nil
}

func countNames(profile *specs.LinuxSeccomp) int {
	n := 0
	for _, s := range profile.Syscalls {
		n += len(s.Names)
	}
	return n
}

func addRules(filter *libseccomp.ScmpFilter, s specs.LinuxSyscall, def libseccomp.ScmpAction) error {
	act, err := action(s.Action, s.ErrnoRet)
	if err != nil {
		return err
	}
	if act == def {
		return nil // libseccomp refuses rules that change nothing
	}
	conds, err := conditions(s.Args)
	if err != nil {
		return err
	}
	for _, name := range s.Names {
		nr, err := libseccomp.GetSyscallFromName(name)
		if err != nil {
			continue // a call this libseccomp does not know: the ENOSYS head answers it
		}
		for _, c := range conds {
			if len(c) == 0 {
				err = filter.AddRule(nr, act)
			} else {
				err = filter.AddRuleConditional(nr, act, c)
			}
			if err != nil {
				return fmt.Errorf("rule for %s: %w", name, err)
			}
		}
	}
	return nil
}

// conditions groups the argument checks into rules. Checks of one rule must
// all hold, but libseccomp takes one check per argument: if an argument is
// named twice each check becomes a rule of its own, any of which may hold, as
// in runc.
func conditions(args []specs.LinuxSeccompArg) ([][]libseccomp.ScmpCondition, error) {
	seen := map[uint]bool{}
	split := false
	var all []libseccomp.ScmpCondition
	for _, a := range args {
		op, ok := operators[a.Op]
		if !ok {
			return nil, fmt.Errorf("operator %q is not known", a.Op)
		}
		c, err := libseccomp.MakeCondition(a.Index, op, a.Value, a.ValueTwo)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
		split = split || seen[a.Index]
		seen[a.Index] = true
	}
	if !split {
		return [][]libseccomp.ScmpCondition{all}, nil
	}
	var rules [][]libseccomp.ScmpCondition
	for _, c := range all {
		rules = append(rules, []libseccomp.ScmpCondition{c})
	}
	return rules, nil
}

var operators = map[specs.LinuxSeccompOperator]libseccomp.ScmpCompareOp{
	specs.OpEqualTo:      libseccomp.CompareEqual,
	specs.OpNotEqual:     libseccomp.CompareNotEqual,
	specs.OpLessThan:     libseccomp.CompareLess,
	specs.OpLessEqual:    libseccomp.CompareLessOrEqual,
	specs.OpGreaterThan:  libseccomp.CompareGreater,
	specs.OpGreaterEqual: libseccomp.CompareGreaterEqual,
	specs.OpMaskedEqual:  libseccomp.CompareMaskedEqual,
}

func action(a specs.LinuxSeccompAction, errno *uint) (libseccomp.ScmpAction, error) {
	code := int16(unix.EPERM)
	if errno != nil {
		code = int16(*errno)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return libseccomp.ActKillThread, nil
	case specs.ActKillProcess:
		return libseccomp.ActKillProcess, nil
	case specs.ActTrap:
		return libseccomp.ActTrap, nil
	case specs.ActErrno:
		return libseccomp.ActErrno.SetReturnCode(code), nil
	case specs.ActTrace:
		return libseccomp.ActTrace.SetReturnCode(code), nil
	case specs.ActAllow:
		return libseccomp.ActAllow, nil
	case specs.ActLog:
		return libseccomp.ActLog, nil
	}
	return libseccomp.ActInvalid, fmt.Errorf("action %q is not supported", a)
}
