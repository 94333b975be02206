package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/wherry-run/wherry/supervisor/api"
)

// Units reads units.
type Units interface {
	Units() []api.Unit
	Unit(ctx context.Context, name string) (api.UnitDetail, error)
	Match(patterns []string) ([]string, error)
}

// Actor changes the operator's intent.
type Actor interface {
	Start(ctx context.Context, r api.ActRequest, by string) ([]string, error)
	Stop(ctx context.Context, r api.ActRequest, by string) ([]string, error)
	Restart(ctx context.Context, r api.ActRequest, by string) ([]string, error)
	Remove(ctx context.Context, r api.ActRequest, by string) ([]string, error)
}

// Applier makes units what files say.
type Applier interface {
	Apply(ctx context.Context, r api.ApplyRequest, by string) (api.ApplyResult, error)
}

// getUnits lists all units, or those that the match parameters name.
func (s *Server) getUnits(w http.ResponseWriter, r *http.Request) error {
	all := s.Backend.Units()
	if patterns := r.URL.Query()["match"]; len(patterns) > 0 {
		names, err := s.Backend.Match(patterns)
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(slices.Clone(all), func(u api.Unit) bool { return !slices.Contains(names, u.Name) })
	}
	if all == nil {
		all = []api.Unit{}
	}
	return reply(w, all, nil)
}

func (s *Server) getUnit(w http.ResponseWriter, r *http.Request) error {
	name, err := s.unitOf(r.PathValue("name"))
	if err != nil {
		return err
	}
	d, err := s.Backend.Unit(r.Context(), name)
	return reply(w, d, err)
}

// act is the handler of one verb of Actor.
func (s *Server) act(verb func(context.Context, api.ActRequest, string) ([]string, error)) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		var req api.ActRequest
		if err := readJSON(r, &req); err != nil {
			return err
		}
		if len(req.Units) == 0 && !req.All {
			return fmt.Errorf("%w: names no unit", errBody)
		}
		names, err := verb(r.Context(), req, peerOf(r.Context()).String())
		if names == nil {
			names = []string{}
		}
		return reply(w, api.ActResult{Units: names}, err)
	}
}

func (s *Server) postApply(w http.ResponseWriter, r *http.Request) error {
	var req api.ApplyRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	res, err := s.Backend.Apply(r.Context(), req, peerOf(r.Context()).String())
	return reply(w, res, err)
}

// one resolves a name, unique prefix or glob to exactly one unit.
func (s *Server) one(pattern string) (string, error) {
	names, err := s.Backend.Match([]string{pattern})
	if err != nil {
		return "", err
	}
	switch len(names) {
	case 0:
		return "", fmt.Errorf("%w: %s", api.ErrNoSuchUnit, pattern)
	case 1:
		return names[0], nil
	}
	return "", fmt.Errorf("%w %s: %v", api.ErrAmbiguous, pattern, names)
}

// unitOf resolves the name of a unit or of one of its instances to the unit's.
func (s *Server) unitOf(name string) (string, error) {
	for _, u := range s.Backend.Units() {
		for _, i := range u.Instances {
			if i.Name == name {
				return u.Name, nil
			}
		}
	}
	return s.one(name)
}

// target resolves what logs, exec and the like are aimed at: an instance by its
// exact name, otherwise a unit as one does; a container's name stays as it is.
func (s *Server) target(word string) (string, error) {
	name, container := api.SplitTarget(word)
	for _, u := range s.Backend.Units() {
		if u.Name == name {
			return word, nil
		}
		for _, i := range u.Instances {
			if i.Name == name {
				return word, nil
			}
		}
	}
	name, err := s.one(name)
	return api.JoinTarget(name, container), err
}
