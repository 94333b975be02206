package ctl

import (
	"context"
	"slices"
	"strings"
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

// completeTargets offers units, and once a name goes on behind a unit's, its instances and containers.
func (a *app) completeTargets(_ *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), completeWait)
	defer cancel()
	units, err := a.client().Units(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return targets(units, toComplete), cobra.ShellCompDirectiveNoFileComp
}

// targets are the names that text may be the beginning of. A unit's parts are offered
// only behind its whole name, or a list of many replicas would be in the way.
func targets(units []api.Unit, text string) []string {
	list := names(units)
	for _, u := range units {
		rest, ok := strings.CutPrefix(text, u.Name)
		if !ok {
			continue
		}
		if strings.HasPrefix(rest, "/") && len(u.Instances) > 0 {
			list = append(list, parts(u.Name, u.Instances[0])...)
		}
		for _, i := range u.Instances {
			list = append(list, i.Name)
			if strings.HasPrefix(text, i.Name) {
				list = append(list, parts(i.Name, i)...)
			}
		}
	}
	return slices.DeleteFunc(list, func(s string) bool { return !strings.HasPrefix(s, text) })
}

// parts are the containers of an instance, behind name.
func parts(name string, i api.Instance) []string {
	list := make([]string, len(i.Containers))
	for n, c := range i.Containers {
		list[n] = api.JoinTarget(name, c.Name)
	}
	return list
}

// completePlace offers TARGET: beside the files here, for the two arguments of a copy.
func (a *app) completePlace(c *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, _ := a.completeTargets(c, args, toComplete)
	for n := range list {
		list[n] += ":"
	}
	return list, cobra.ShellCompDirectiveNoSpace
}

// completeUnit is completeTargets for the first argument only.
func (a *app) completeUnit(c *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.completeTargets(c, args, toComplete)
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
