package ctl

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// This file is the Docker-shaped view of units: the fields that scripts written
// for Docker read. A unit stands where they expect a container; its name is its
// id. What has no counterpart is not there, so that a template that asks for it
// fails instead of printing something wrong.

// psRow is a unit as a line of `ps`.
type psRow struct {
	ID         string
	Names      string
	Image      string
	Command    string
	CreatedAt  string
	RunningFor string
	Status     string
	State      string
	Ports      string
	Labels     string
	Networks   string
}

func newPsRow(u api.Unit, now time.Time) psRow {
	return psRow{
		ID: u.Name, Names: u.Name, Image: u.Image,
		Command:    strconv.Quote(cutCommand(u.Command)),
		CreatedAt:  u.CreatedAt.Format("2006-01-02 15:04:05 -0700 MST"),
		RunningFor: term.Ago(now.Sub(u.CreatedAt)) + " ago",
		Status:     dockerStatus(u, now),
		State:      dockerState(u.State),
		Ports:      portList(u.Ports),
		Labels:     labelList(u.Labels),
		Networks:   u.Network,
	}
}

// cutCommand is a command short enough for a table, as Docker cuts it.
func cutCommand(args []string) string {
	s := []rune(strings.Join(args, " "))
	if len(s) > 20 {
		s = append(s[:19], '…')
	}
	return string(s)
}

// statePaused is the state of what stands still as a whole.
const statePaused = "paused"

// dockerState is Docker's word for our state.
func dockerState(state string) string {
	switch state {
	case plan.StateRunning, plan.StateDegraded:
		return "running"
	case plan.StateBackoff:
		return "restarting"
	case statePaused:
		return statePaused
	case plan.StateStopping:
		return "removing"
	case plan.StateStopped, plan.StateCompleted, plan.StateFailed:
		return "exited"
	}
	return "created"
}

// dockerStatus is the sentence of `ps`.
func dockerStatus(u api.Unit, now time.Time) string {
	i := leading(u)
	switch state := dockerState(u.State); {
	case (state == "running" || state == statePaused) && i != nil:
		s := "Up " + term.Ago(now.Sub(i.StartedAt))
		if state == statePaused {
			s += " (Paused)"
		}
		if u.Running != u.Replicas {
			s += fmt.Sprintf(" (%d/%d)", u.Running, u.Replicas)
		}
		return s
	case state == "removing":
		return "Stopping"
	case i == nil || i.Exit == nil:
		if u.State == plan.StateFailed || u.State == plan.StateBackoff {
			return "Created (" + u.State + ")" // its start failed
		}
		return "Created"
	case state == "restarting":
		return fmt.Sprintf("Restarting (%d) %s ago", exitCode(*i.Exit), term.Ago(now.Sub(i.Exit.At)))
	case state == "exited":
		return fmt.Sprintf("Exited (%d) %s ago", exitCode(*i.Exit), term.Ago(now.Sub(i.Exit.At)))
	}
	return "Created"
}

// leading is the instance that stands for the unit: the first that runs, else
// the first.
func leading(u api.Unit) *api.Instance {
	for n := range u.Instances {
		if u.Instances[n].State == plan.StateRunning {
			return &u.Instances[n]
		}
	}
	if len(u.Instances) > 0 {
		return &u.Instances[0]
	}
	return nil
}

func portList(ports []unit.Port) string {
	list := make([]string, len(ports))
	for n, p := range ports {
		ip := p.HostIP
		if ip == "" {
			ip = "0.0.0.0"
		}
		list[n] = fmt.Sprintf("%s:%d->%d/%s", ip, p.HostPort, p.Port, p.Protocol)
	}
	return strings.Join(list, ", ")
}

func labelList(labels map[string]string) string {
	list := make([]string, 0, len(labels))
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		list = append(list, k+"="+labels[k])
	}
	return strings.Join(list, ",")
}

// inspectView is a unit as templates of `inspect` see it: Docker's fields,
// then those of ours that have another name.
type inspectView struct {
	ID           string `json:"Id"`
	Name         string
	Created      string
	Image        string // the digest, once it is known
	Path         string
	Args         []string
	RestartCount int
	LogPath      string
	State        inspectState
	Config       inspectConfig
	HostConfig   inspectHost
	Mounts       []inspectMount

	NetworkSettings inspectNetwork

	Kind, Intent, Reason       string
	Revision, Replicas, Active int
	Definition                 unit.Unit
	Revisions                  []api.Revision
	Instances                  []api.Instance
}

// Id serves templates, where Docker's field is called so.
func (v inspectView) Id() string { return v.ID }

type inspectState struct {
	Status     string
	Running    bool
	Paused     bool
	Restarting bool
	Pid        int
	ExitCode   int
	OOMKilled  bool
	Error      string
	StartedAt  string
	FinishedAt string
}

type inspectConfig struct {
	Image      string
	Cmd        []string
	Entrypoint []string
	Env        []string
	Labels     map[string]string
	User       string
	WorkingDir string
	StopSignal string
}

type inspectHost struct {
	NetworkMode    string
	RestartPolicy  struct{ Name string }
	Memory         int64
	NanoCpus       int64
	PidsLimit      int64
	ReadonlyRootfs bool
	CapAdd         []string
	CapDrop        []string
	Binds          []string
}

type inspectMount struct {
	Type, Source, Destination string
	RW                        bool
}

type inspectNetwork struct {
	IPAddress string
	Ports     map[string][]inspectBinding
}

type inspectBinding struct{ HostIp, HostPort string }

// newInspectView shows the unit; instance, if not empty, stands for it.
func newInspectView(d api.UnitDetail, instance string) inspectView {
	v := inspectView{
		ID: d.Name, Name: d.Name, Created: dockerTime(d.CreatedAt), Image: d.Digest,
		RestartCount: d.Restarts,
		Kind:         d.Kind, Intent: d.Intent, Reason: d.Reason,
		Revision: d.Revision, Replicas: d.Replicas, Active: d.Running,
		Definition: d.Definition, Revisions: d.Revisions, Instances: d.Instances,
		NetworkSettings: inspectNetwork{Ports: map[string][]inspectBinding{}},
	}
	if len(d.Command) > 0 {
		v.Path, v.Args = d.Command[0], d.Command[1:]
	}
	i := leading(d.Unit)
	for n := range d.Instances {
		if d.Instances[n].Name == instance {
			i = &d.Instances[n]
		}
	}
	v.State = newInspectState(d.Unit, i)
	if i != nil {
		v.LogPath = i.LogPath
		v.NetworkSettings.IPAddress, _, _ = strings.Cut(i.Address, "/")
	}
	for _, p := range d.Ports {
		key := fmt.Sprintf("%d/%s", p.Port, p.Protocol)
		v.NetworkSettings.Ports[key] = append(v.NetworkSettings.Ports[key],
			inspectBinding{p.HostIP, strconv.Itoa(p.HostPort)})
	}
	v.define(d)
	return v
}

func newInspectState(u api.Unit, i *api.Instance) inspectState {
	s := inspectState{Status: dockerState(u.State), Error: u.Reason}
	if i != nil {
		s.Status, s.Pid, s.Error = dockerState(i.State), i.Pid, i.Error
		s.StartedAt, s.FinishedAt = dockerTime(i.StartedAt), dockerTime(i.EndedAt)
		if i.Exit != nil {
			s.ExitCode, s.OOMKilled = exitCode(*i.Exit), i.Exit.OOM
		}
	}
	s.Paused, s.Restarting = s.Status == statePaused, s.Status == "restarting"
	s.Running = s.Paused || s.Status == "running" // as Docker has it
	if s.Running {
		s.ExitCode = 0
	} else {
		s.Pid = 0
	}
	return s
}

// define fills in what the unit's definition says.
func (v *inspectView) define(d api.UnitDetail) {
	h := &v.HostConfig
	h.NetworkMode = d.Definition.Network
	h.RestartPolicy.Name = map[unit.Condition]string{
		unit.Never: "no", unit.OnFailure: "on-failure", unit.Any: "always"}[d.Definition.Restart.Condition]
	v.Config.Image, v.Config.Cmd, v.Config.Labels = d.Image, d.Command, d.Labels
	if len(d.Definition.Containers) == 0 {
		return
	}
	c := d.Definition.Leading() // of several, the one that stands for the unit
	v.Config.Image, v.Config.Cmd, v.Config.Entrypoint = c.Image, c.Command, c.Entrypoint
	v.Config.User, v.Config.WorkingDir, v.Config.StopSignal = c.User, c.WorkingDir, c.StopSignal
	for _, k := range slices.Sorted(maps.Keys(c.Environment)) {
		v.Config.Env = append(v.Config.Env, k+"="+c.Environment[k])
	}
	h.Memory, h.NanoCpus, h.PidsLimit = c.Limits.Memory, int64(c.Limits.CPUs*1e9), c.Limits.Pids
	h.ReadonlyRootfs, h.CapAdd, h.CapDrop = c.ReadOnly, c.CapAdd, c.CapDrop
	for _, m := range c.Volumes {
		v.Mounts = append(v.Mounts, inspectMount{m.Type, m.Source, m.Target, !m.ReadOnly})
		if m.Type == "bind" {
			bind := m.Source + ":" + m.Target
			if m.ReadOnly {
				bind += ":ro"
			}
			h.Binds = append(h.Binds, bind)
		}
	}
}

// dockerTime is a time as Docker's API has it; what never happened is year 1.
func dockerTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// imageRow is an image's name as a line of `images`.
type imageRow struct {
	ID           string
	Repository   string
	Tag          string
	Digest       string
	CreatedSince string
	CreatedAt    string
	Size         string
}

// newImageRows gives a row for each name of an image, or one without a name.
func newImageRows(i api.Image, now time.Time) []imageRow {
	row := imageRow{
		ID: shortID(i.ConfigID), Repository: "<none>", Tag: "<none>", Digest: i.Digest,
		CreatedSince: "N/A", CreatedAt: i.Created.Format("2006-01-02 15:04:05 -0700 MST"), Size: term.Size(i.Size),
	}
	if !i.Created.IsZero() {
		row.CreatedSince = term.Ago(now.Sub(i.Created)) + " ago"
	}
	if len(i.Names) == 0 {
		return []imageRow{row}
	}
	rows := make([]imageRow, 0, len(i.Names))
	for _, name := range i.Names {
		r := row
		r.Repository, r.Tag = splitName(name)
		rows = append(rows, r)
	}
	return rows
}

// splitName parts "host:5000/a/b:tag" into repository and tag.
func splitName(name string) (repository, tag string) {
	name, digest, byDigest := strings.Cut(name, "@")
	if byDigest {
		_ = digest
		return name, "<none>"
	}
	if n := strings.LastIndexByte(name, ':'); n > strings.LastIndexByte(name, '/') {
		return name[:n], name[n+1:]
	}
	return name, "latest"
}

// shortID is the beginning of a digest, as long as Docker shows it.
func shortID(digest string) string {
	hex := digest[strings.IndexByte(digest, ':')+1:]
	return hex[:min(12, len(hex))]
}
