//go:build !faults

package keeper

// reach does nothing: this is no build for tests.
func (k *Keeper) reach(point, *container) error { return nil }
