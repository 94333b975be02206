package api

import "context"

// DebugRequest runs a command from an image of its own in the namespaces of a running container,
// whose files it sees at /target. POST /v1/debug, upgraded; frames as for run.
type DebugRequest struct {
	Target string   `json:"target"`         // see SplitTarget
	Image  string   `json:"image"`          // with the tools
	Args   []string `json:"args,omitempty"` // empty: the image's
	Env    []string `json:"env,omitempty"`
	Stdin  bool     `json:"stdin,omitempty"`
	TTY    bool     `json:"tty,omitempty"`
	Size   *Size    `json:"size,omitempty"`
}

// Debug runs the command and returns its exit. When ctx ends or in's Stdin says ErrDetached,
// the command is ended: nothing of it stays.
func (c *Client) Debug(ctx context.Context, r DebugRequest, in Input, o RunOutput) (Exit, error) {
	s, err := c.duplex(ctx, "/debug", r)
	if err != nil {
		return Exit{}, err
	}
	result, err := s.runCreated(in, o)
	if err != nil || result.Exit == nil {
		return Exit{}, err
	}
	return *result.Exit, nil
}
