package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wherry-run/wherry/image"
)

// maxRegistries bounds how many are looked at: a Docker config may have hundreds.
const maxRegistries = 50

// registryChecks is a check for each registry that is configured or that units use.
func (e *exam) registryChecks(ctx context.Context) []check {
	hosts := append(e.o.Images.Hosts(), e.o.Hosts...)
	if e.o.Units != "" {
		ctx, cancel := context.WithTimeout(ctx, e.o.Limit/5)
		defer cancel()
		hosts = append(hosts, e.hostsOfUnits(ctx)...)
	}
	slices.Sort(hosts)
	hosts = slices.Compact(hosts)
	list := make([]check, 0, len(hosts))
	for _, host := range hosts[:min(len(hosts), maxRegistries)] {
		list = append(list, check{name: "registry." + host, stuck: "curl -sS -m 5 -o /dev/null -w '%{http_code}\\n' https://" + host + "/v2/; a credential helper may hang too",
			look: func(ctx context.Context, e *exam) finding { return e.registry(ctx, host) }})
	}
	return list
}

// hostsOfUnits are the registries of the folder's unit files. What hangs here is
// given up; the check of the files says so.
func (e *exam) hostsOfUnits(ctx context.Context) []string {
	found := make(chan []string, 1)
	go func() {
		units, _, _ := e.units(ctx)
		var hosts []string
		for _, u := range units {
			for _, c := range u.Containers {
				if h := image.HostOf(c.Image); h != "" {
					hosts = append(hosts, h)
				}
			}
		}
		found <- hosts
	}()
	select {
	case hosts := <-found:
		return hosts
	case <-ctx.Done():
		return nil
	}
}

// mostSkew is how far a clock may be off for what AWS signs (Signature Version 4).
const mostSkew = 5 * time.Minute

// isECR: registries of Amazon's, for which the daemon gets tokens itself.
func isECR(host string) bool {
	return host == "public.ecr.aws" || strings.Contains(host, ".dkr.ecr.") || strings.Contains(host, ".dkr-ecr.")
}

func (e *exam) registry(ctx context.Context, host string) finding {
	l, open, err := e.p.login(ctx, host)
	if err != nil && errors.Is(err, fs.ErrPermission) && e.h.uid != 0 {
		return skip("its credentials are for root: sudo wherry ctl doctor")
	}
	if skew := e.h.now().Sub(l.Date); !l.Date.IsZero() && skew.Abs() > mostSkew {
		return failed(fmt.Sprintf("its clock says %s, ours is %v off", l.Date.UTC().Format("2006-01-02 15:04:05"), skew.Round(time.Second)), e.setClock())
	}
	if err != nil {
		return failed(oneLine(err), e.registryRemedy(host, err))
	}
	if len(open) > 0 {
		return warning(fmt.Sprintf("%s can be read by everybody", strings.Join(open, ", ")), "chmod 600 "+strings.Join(open, " "))
	}
	asked := ""
	if e.o.AskRegistries {
		asked = ", it lets us in"
	}
	switch {
	case l.Anonymous && strings.Contains(host, ".dkr.ecr."):
		return warning("no credentials, and it has nothing public", e.awsRemedy())
	case l.Anonymous:
		return fine("no credentials: public images" + asked)
	case l.From == "":
		return fine("there are credentials" + asked)
	}
	return fine("credentials from " + l.From + asked)
}

// registryRemedy goes by what the errors say, which are our own words or the kernel's.
func (e *exam) registryRemedy(host string, err error) string {
	text := err.Error()
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(text, p) })
	}
	switch {
	case has("no such program") && has("ecr-login"):
		return "take ecr-login out of credHelpers and credsStore of the Docker config: wherry logs in to ECR by itself"
	case has("no such program"):
		return "install that program into a folder of the daemon's PATH, or " + e.setting("registries: {"+host+": {credentials: {username: NAME, password_file: /etc/wherry/password}}}")
	case has("password_file", "token_file") && errors.Is(err, fs.ErrNotExist):
		return "install -m 600 /dev/stdin FILE puts the secret there"
	case has("certificate signed by unknown authority", "unknown authority"):
		return e.setting("registries: {" + host + ": {ca: /etc/wherry/ca.pem}}")
	case has("not yet valid", "has expired or is not yet valid"):
		return e.setClock()
	case isECR(host):
		return e.awsRemedy()
	case errors.Is(err, image.ErrDenied), has("denied", "401", "unauthorized"):
		return "docker login " + host + " as root, or " + e.setting("registries: {"+host+": {credentials: {username: NAME, password_file: /etc/wherry/password}}}")
	case errors.Is(err, image.ErrUnavailable), has("connection refused", "no such host", "timeout", "unreachable"):
		return "curl -v https://" + host + "/v2/; behind a proxy: " + e.setting("registries: {"+host+": {proxy: http://proxy:3128}}")
	}
	return "mend the credentials of " + host + " in " + e.o.Config + " or in the Docker config"
}

func (e *exam) awsRemedy() string {
	return "give this host credentials of AWS that may pull: an instance role with the policy AmazonEC2ContainerRegistryReadOnly (and a hop limit of 2 where the daemon is in a container); aws sts get-caller-identity shows which it has"
}

// openFiles collects the warnings about files with secrets that everybody may read.
type openFiles struct {
	mu    sync.Mutex
	files []string
}

func (o *openFiles) logger() *slog.Logger { return slog.New(o) }

func (o *openFiles) list() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.files)
}

// Enabled implements slog.Handler.
func (o *openFiles) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// Handle implements slog.Handler.
func (o *openFiles) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "file" {
			o.mu.Lock()
			o.files = append(o.files, a.Value.String())
			o.mu.Unlock()
		}
		return true
	})
	return nil
}

// WithAttrs implements slog.Handler.
func (o *openFiles) WithAttrs([]slog.Attr) slog.Handler { return o }

// WithGroup implements slog.Handler.
func (o *openFiles) WithGroup(string) slog.Handler { return o }
