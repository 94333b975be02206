package keeper

import (
	"errors"
	"os"
)

// attach returns the container's side of its input.
func (k *Keeper) attach(id string) (*os.File, error) { return nil, errors.ErrUnsupported }

// closeStdin ends the container's input.
func (k *Keeper) closeStdin(id string) error { return errors.ErrUnsupported }
