package keeper

import (
	"context"
	"errors"
	"os"
)

// openRoot opens a container's root folder.
func (k *Keeper) openRoot(ctx context.Context, id string) (*os.File, error) {
	return nil, errors.ErrUnsupported
}
