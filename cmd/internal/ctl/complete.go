package ctl

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/supervisor/api"
)

// completeWait bounds how long a shell waits for live names.
const completeWait = 500 * time.Millisecond

// completeUnits offers the names of units.
func (a *app) completeUnits(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), completeWait)
	defer cancel()
	units, err := a.client().Units(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names(units), cobra.ShellCompDirectiveNoFileComp
}

// completeUnit offers units for the first argument only.
func (a *app) completeUnit(c *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.completeUnits(c, args, toComplete)
}

// completeImages offers the names of images.
func (a *app) completeImages(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), completeWait)
	defer cancel()
	images, err := a.client().Images(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var all []string
	for _, i := range images {
		all = append(all, i.Names...)
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// completeImage offers images for the first argument only.
func (a *app) completeImage(c *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeImages(c, args, toComplete)
}

// completeOperations offers the ids of what can be aborted.
func (a *app) completeOperations(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), completeWait)
	defer cancel()
	operations, _ := a.client().Operations(ctx)
	var ids []string
	for _, o := range operations {
		if o.Unit == "" {
			ids = append(ids, o.ID+"\t"+o.Object)
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func names(units []api.Unit) []string {
	list := make([]string, len(units))
	for i, u := range units {
		list[i] = u.Name
	}
	return list
}
