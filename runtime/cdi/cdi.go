package cdi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"golang.org/x/sys/unix"
)

// Registry is where devices are described.
type Registry struct {
	Dirs []string // nil: DefaultDirs; of two descriptions the one in the later folder counts
}

// DefaultDirs are the specification's.
var DefaultDirs = []string{"/etc/cdi", "/var/run/cdi"}

// ErrUnknown says that no file describes a device.
var ErrUnknown = errors.New("no file in /etc/cdi or /var/run/cdi describes it")

// Spec is one file.
type Spec struct {
	Version     string            `json:"cdiVersion"`
	Kind        string            `json:"kind"` // "vendor.com/class"
	Annotations map[string]string `json:"annotations,omitempty"`
	Devices     []Device          `json:"devices"`
	Edits       Edits             `json:"containerEdits,omitzero"` // for every device of the file, once
}

// Device is one device of a file.
type Device struct {
	Name        string            `json:"name"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Edits       Edits             `json:"containerEdits"`
}

// Edits are what a container gets.
type Edits struct {
	Env            []string        `json:"env,omitempty"`
	DeviceNodes    []Node          `json:"deviceNodes,omitempty"`
	Mounts         []Mount         `json:"mounts,omitempty"`
	Hooks          []Hook          `json:"hooks,omitempty"`
	AdditionalGIDs []uint32        `json:"additionalGids,omitempty"`
	IntelRdt       json.RawMessage `json:"intelRdt,omitempty"`
	NetDevices     json.RawMessage `json:"netDevices,omitempty"`
}

// Node is a device node; HostPath is where the host has it, if elsewhere.
type Node struct {
	Path        string  `json:"path"`
	HostPath    string  `json:"hostPath,omitempty"`
	Type        string  `json:"type,omitempty"`
	Major       int64   `json:"major,omitempty"` // as the host's node has it now: what was written once may be wrong after a reboot
	Minor       int64   `json:"minor,omitempty"`
	FileMode    *uint32 `json:"fileMode,omitempty"`
	Permissions string  `json:"permissions,omitempty"`
	UID         *uint32 `json:"uid,omitempty"`
	GID         *uint32 `json:"gid,omitempty"`
}

// Mount is a mount of a file or folder of the host.
type Mount struct {
	HostPath      string   `json:"hostPath"`
	ContainerPath string   `json:"containerPath"`
	Options       []string `json:"options,omitempty"`
	Type          string   `json:"type,omitempty"` // empty: bind
}

// Hook is a program that is run on the host at some point of the container's life.
type Hook struct {
	Name    string   `json:"hookName"`
	Path    string   `json:"path"`
	Args    []string `json:"args,omitempty"`
	Env     []string `json:"env,omitempty"`
	Timeout *int     `json:"timeout,omitempty"`
}

// mostSpec bounds a file.
const mostSpec = 4 << 20

// found is a device with its file.
type found struct {
	file   string
	spec   *Spec
	device *Device
}

// find reads the files until it has every name.
func (r Registry) find(names []string) ([]found, error) {
	dirs := r.Dirs
	if dirs == nil {
		dirs = DefaultDirs
	}
	have := map[string]found{}
	var broken []error
	for i := len(dirs) - 1; i >= 0; i-- {
		files, err := specFiles(dirs[i])
		if err != nil {
			return nil, err
		}
		here := map[string]found{}
		for _, file := range files {
			s, err := readSpec(file)
			if err != nil {
				broken = append(broken, err) // of no concern unless a name is missing
				continue
			}
			for n := range s.Devices {
				d := &s.Devices[n]
				name := s.Kind + "=" + d.Name
				if other, twice := here[name]; twice && slices.Contains(names, name) {
					return nil, fmt.Errorf("cdi %s: both %s and %s describe it", name, other.file, file)
				}
				here[name] = found{file, s, d}
			}
		}
		for name, f := range here {
			if _, ok := have[name]; !ok {
				have[name] = f
			}
		}
	}
	var list []found
	for _, name := range names {
		f, ok := have[name]
		if !ok {
			return nil, errors.Join(append([]error{fmt.Errorf("cdi %s: %w", name, ErrUnknown)}, broken...)...)
		}
		list = append(list, f)
	}
	return list, nil
}

// specFiles lists the folder's files in the order of their names.
func specFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cdi: %w", err)
	}
	var files []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext == ".json" || ext == ".yaml" || ext == ".yml" {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files, nil
}

func readSpec(file string) (*Spec, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cdi: %w", err)
	}
	defer f.Close()
	if err := trusted(f); err != nil {
		return nil, fmt.Errorf("cdi %s: %w", file, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, mostSpec+1))
	if err == nil && len(text) > mostSpec {
		err = errors.New("larger than 4 MiB")
	}
	if err != nil {
		return nil, fmt.Errorf("cdi %s: %w", file, err)
	}
	s, err := Parse(text, filepath.Ext(file) == ".json")
	if err != nil {
		return nil, fmt.Errorf("cdi %s: %w", file, err)
	}
	return s, nil
}

// trusted: whoever writes the file has the host's root run programs.
func trusted(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("not a regular file")
	case st.Uid != 0 && st.Uid != uint32(os.Geteuid()):
		return fmt.Errorf("it belongs to user %d, not to root", st.Uid)
	case st.Mode&0o022 != 0:
		return errors.New("others than its owner may write it")
	}
	return nil
}

// Parse reads a file. A field that is not known is an error: a device would lack what it says.
func Parse(text []byte, isJSON bool) (s *Spec, err error) {
	defer func() {
		if recover() != nil {
			s, err = nil, errors.New("not YAML: the parser gave up on it")
		}
	}()
	if !isJSON {
		if text, err = yaml.YAMLToJSON(text); err != nil {
			return nil, fmt.Errorf("not YAML: %w", err)
		}
	}
	s = &Spec{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return nil, err
	}
	return s, s.check()
}

func (s *Spec) check() error {
	vendor, class, ok := strings.Cut(s.Kind, "/")
	if !ok || vendor == "" || class == "" {
		return fmt.Errorf("kind %q: not like vendor.com/class", s.Kind)
	}
	if s.Version == "" || strings.SplitN(s.Version, ".", 2)[0] > "1" {
		return fmt.Errorf("cdiVersion %q: not known", s.Version)
	}
	if err := s.Edits.check(); err != nil {
		return err
	}
	for _, d := range s.Devices {
		if d.Name == "" {
			return errors.New("a device has no name")
		}
		if err := d.Edits.check(); err != nil {
			return fmt.Errorf("device %s: %w", d.Name, err)
		}
	}
	return nil
}

func (e *Edits) check() error {
	for _, kv := range e.Env {
		if strings.IndexByte(kv, '=') <= 0 || strings.ContainsRune(kv, 0) {
			return fmt.Errorf("env %q is not NAME=value", kv)
		}
	}
	for _, n := range e.DeviceNodes {
		if err := n.check(); err != nil {
			return err
		}
	}
	for _, m := range e.Mounts {
		if !path.IsAbs(m.ContainerPath) || path.Clean(m.ContainerPath) == "/" || m.HostPath == "" || strings.ContainsRune(m.HostPath+m.ContainerPath, 0) {
			return fmt.Errorf("mount of %q at %q: not a mount", m.HostPath, m.ContainerPath)
		}
	}
	for _, h := range e.Hooks {
		if !slices.Contains(hookNames, h.Name) || !path.IsAbs(h.Path) {
			return fmt.Errorf("hook %q %q: not a hook", h.Name, h.Path)
		}
	}
	return nil
}

func (n *Node) check() error {
	switch {
	case !path.IsAbs(n.Path) || path.Clean(n.Path) == "/" || n.HostPath != "" && !path.IsAbs(n.HostPath):
		return fmt.Errorf("device node %q: not an absolute path", n.Path)
	case !slices.Contains([]string{"", "b", "c", "u"}, n.Type):
		return fmt.Errorf("device node %s: type %q is not supported", n.Path, n.Type)
	case strings.Trim(n.Permissions, "rwm") != "":
		return fmt.Errorf("device node %s: permissions %q: not some of r, w and m", n.Path, n.Permissions)
	}
	return nil
}

var hookNames = []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}
