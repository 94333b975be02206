package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wherry-run/wherry/cmd/internal/term"
	"github.com/wherry-run/wherry/supervisor/api"
)

// Look is a look at the host by this process itself, as a daemon with the
// configuration would. socket is where one may answer.
type Look func(ctx context.Context, config, socket string, r api.DoctorRequest) api.Diagnosis

// doctorWait is how long the daemon may take besides the limit of a check: they go
// side by side.
const doctorWait = 15 * time.Second

func doctorCommand(a *app) *cobra.Command {
	var (
		f      formatFlags
		local  bool
		config string
		r      api.DoctorRequest
	)
	c := &cobra.Command{
		Use:   "doctor",
		Short: "What is wrong with this host, and what to type against it",
		Example: `  wherry ctl doctor
  wherry ctl doctor --quiet        problems only
  wherry ctl doctor --registries   also ask the registries whether they let us in
  sudo wherry ctl doctor --local   before there is a daemon, or instead of it`,
		Long: `The daemon looks, as root; where none answers, this process does. Nothing is
changed: mounts, namespaces and tables are tried where nobody sees them.
Credentials of registries are looked for as a pull does, which runs helpers and
asks AWS; the registries themselves are asked only with --registries.

Verdicts: ok; warn: works worse than it could, or will fail one day; fail: wherry
or some units do not work; skip: it cannot be looked at. Ends with 1 if
something fails.`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			format, err := f.parse()
			if err != nil {
				return err
			}
			if r.Limit <= 0 || r.Limit > time.Minute {
				return term.Usage("--timeout %v: want more than nothing, at most a minute", r.Limit)
			}
			d, err := a.diagnose(c.Context(), local, config, r)
			if err != nil {
				return a.cannot("look at the host", "", err)
			}
			return a.showDiagnosis(d, format, f.quiet)
		},
	}
	f.add(c, "print problems only")
	c.Flags().BoolVar(&local, "local", false, "look from this process, whether a daemon answers or not")
	c.Flags().BoolVar(&r.Registries, "registries", false, "ask the registries whether they take the credentials")
	c.Flags().DurationVar(&r.Limit, "timeout", 5*time.Second, "how long one check may take, at most a minute; they go side by side")
	c.Flags().StringVar(&config, "config", "", "with --local: the configuration; /etc/wherry/wherry.yaml if it is there")
	return c
}

// diagnose asks the daemon, and looks itself where that does not help.
func (a *app) diagnose(ctx context.Context, local bool, config string, r api.DoctorRequest) (api.Diagnosis, error) {
	if local || config != "" {
		return a.lookHere(ctx, config, r)
	}
	limited, cancel := context.WithTimeout(ctx, r.Limit+doctorWait)
	defer cancel()
	d, err := a.client().Doctor(limited, r)
	var e *api.Error
	switch {
	case err == nil, ctx.Err() != nil:
		return d, err
	case errors.Is(err, api.ErrUnreachable), errors.Is(err, context.DeadlineExceeded):
	case errors.As(err, &e) && e.Code == api.CodeInvalid && strings.HasPrefix(e.Message, "no such call"): // an older one
	default:
		return d, err
	}
	if a.look == nil {
		return d, err
	}
	a.note("the daemon cannot be asked, this process looks itself: %v", err)
	return a.lookHere(ctx, config, r)
}

func (a *app) lookHere(ctx context.Context, config string, r api.DoctorRequest) (api.Diagnosis, error) {
	if a.look == nil {
		return api.Diagnosis{}, errors.New("this program cannot look by itself")
	}
	return a.look(ctx, config, a.socket, r), nil
}

var verdictStyles = map[api.Verdict]term.Style{api.OK: term.Good, api.Warn: term.Busy, api.Fail: term.Bad, api.Skip: term.Faint}

// showDiagnosis prints the checks, with problems alone the others not, and gives the exit code.
func (a *app) showDiagnosis(d api.Diagnosis, format term.Format, problems bool) error {
	shown := api.Diagnosis{Checks: []api.Check{}}
	counts := map[api.Verdict]int{}
	for _, c := range d.Checks {
		counts[c.Verdict]++
		if !problems || c.Verdict == api.Warn || c.Verdict == api.Fail {
			shown.Checks = append(shown.Checks, c)
		}
	}
	var err error
	switch {
	case format.JSON:
		err = format.Print(a.out, shown)
	case !format.Table():
		err = term.PrintEach(a.out, format, shown.Checks)
	default:
		err = a.diagnosisLines(shown, counts)
	}
	if err == nil && d.Worst() == api.Fail {
		err = term.Code(term.ExitFailed)
	}
	return err
}

// diagnosisLines is for people: nothing is cut, a remedy is there to be copied.
func (a *app) diagnosisLines(d api.Diagnosis, counts map[api.Verdict]int) error {
	width := 0
	for _, c := range d.Checks {
		width = max(width, len(c.Name))
	}
	for _, c := range d.Checks {
		mark := a.out.Paint(verdictStyles[c.Verdict], fmt.Sprintf("%-4s", c.Verdict))
		if err := a.print("%s  %-*s  %s\n", mark, width, c.Name, term.Clean(c.Detail)); err != nil {
			return err
		}
		if c.Remedy == "" {
			continue
		}
		if err := a.print("      %-*s  %s\n", width, "remedy:", a.out.Paint(term.Bold, term.Clean(c.Remedy))); err != nil {
			return err
		}
	}
	var sums []string
	for _, v := range []api.Verdict{api.Fail, api.Warn, api.OK, api.Skip} {
		if counts[v] > 0 {
			sums = append(sums, fmt.Sprintf("%d %s", counts[v], v))
		}
	}
	a.note("%s", strings.Join(sums, ", "))
	return nil
}
