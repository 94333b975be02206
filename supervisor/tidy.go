package supervisor

import (
	"context"
	"errors"

	"github.com/wherry-run/wherry/image"
	"github.com/wherry-run/wherry/supervisor/api"
)

// CollectImages deletes images that nobody needs. What o leaves at 0 comes from
// Options.GC, but for MinAge with All: then none is too young.
func (s *Supervisor) CollectImages(ctx context.Context, o image.GCOptions) (image.GCResult, error) {
	return image.GCResult{}, errors.ErrUnsupported
}

// ExplainImage says whether the next collection would delete the image, and why.
func (s *Supervisor) ExplainImage(ctx context.Context, ref string) (image.Explanation, error) {
	return image.Explanation{}, errors.ErrUnsupported
}

// DiskUsage measures what takes the space. It may take seconds.
func (s *Supervisor) DiskUsage(ctx context.Context) (api.DiskUsage, error) {
	return api.DiskUsage{}, errors.ErrUnsupported
}
