package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/wherry-run/wherry/supervisor/api"
)

// startHere is the command that starts the daemon on this host.
func (e *exam) startHere() string {
	if e.h.systemd() && e.h.exists("/usr/lib/systemd/system/wherry.service") {
		return "systemctl start wherry.service; if it does not start: journalctl -u wherry -n 50"
	}
	return "wherry daemon"
}

func checkDaemon(_ context.Context, e *exam) finding {
	i, err := e.info()
	switch {
	case errors.Is(err, errNoDaemon):
		return skip("there is none to ask")
	case errors.Is(err, fs.ErrPermission):
		return skip("its socket is for root and the group wherry: sudo wherry ctl doctor")
	case err != nil:
		return warning(fmt.Sprintf("does not answer: %v", err), e.startHere())
	}
	text := fmt.Sprintf("%s, pid %d", cmp.Or(i.Version, "of no version"), i.Pid)
	if link, err := os.Readlink(e.h.path(fmt.Sprintf("/proc/%d/exe", i.Pid))); err == nil && strings.HasSuffix(link, " (deleted)") {
		return warning(text+", runs a program that has been replaced since", "systemctl restart wherry.service: containers run on")
	}
	if len(i.Warnings) > 0 {
		return warning(text+", warns: "+strings.Join(i.Warnings, "; "), "see the lines below, and `wherry ctl status`")
	}
	if !i.StartedAt.IsZero() {
		text += ", up " + e.h.now().Sub(i.StartedAt).Truncate(time.Second).String()
	}
	return fine(text)
}

func checkKeeper(_ context.Context, e *exam) finding {
	k, err := e.keeper()
	if k.Binary == "" {
		return failed("wherry-keeper: neither beside wherry nor in /usr/lib/wherry, or where wherry.yaml says",
			"install the package again, or "+e.setting("keeper: /path/of/wherry-keeper"))
	}
	managed := e.o.KeeperManaged || k.Managed
	if err != nil {
		if _, away := e.info(); away != nil {
			return fine(k.Binary + "; none runs, the daemon starts it")
		}
		if managed {
			return failed(fmt.Sprintf("does not answer: %v", err), "systemctl start wherry-keeper.service; journalctl -u wherry-keeper -n 50")
		}
		return failed(fmt.Sprintf("does not answer: %v", err), e.o.RunDir+"/keeper.log says why; then restart the daemon")
	}
	text := strings.TrimSpace(k.Build + " pid " + fmt.Sprint(k.Pid))
	if k.Managed {
		text += ", run by systemd"
	}
	restart := "restart the daemon, which replaces it in place"
	if e.h.systemd() {
		restart = "systemctl restart wherry.service, which replaces it in place"
	}
	switch {
	case k.Refused != "":
		return warning(fmt.Sprintf("%s, an older build: %s has given way to it: %s", text, k.Binary, k.Refused),
			"install the release before it again, or stop the units and then the keeper: systemctl stop wherry.service wherry-keeper.service")
	case !k.Same:
		return warning(fmt.Sprintf("%s, another build than %s", text, k.Binary), restart)
	}
	return fine(text + ", the build of " + k.Binary)
}

func checkSystemd(ctx context.Context, e *exam) finding {
	if !e.h.systemd() {
		return skip("it is not PID 1: the daemon runs its own keeper")
	}
	all, err := e.p.services(ctx)
	if err != nil {
		return warning(err.Error(), "systemctl status")
	}
	main := all["wherry.service"]
	if main.load != "loaded" {
		return warning("the services are not installed: containers depend on whoever started the daemon", "install the package, or scripts/install")
	}
	var wrong, remedies []string
	add := func(what, remedy string) { wrong, remedies = append(wrong, what), append(remedies, remedy) }
	for _, name := range serviceNames {
		s := all[name]
		switch {
		case s.load == "masked":
			add(name+" is masked", "systemctl unmask "+name)
		case s.load != "loaded":
			add(name+" is missing", "install the package again")
		case s.active == "failed":
			add(name+" has failed", "systemctl restart "+name+"; journalctl -u "+name+" -n 50")
		case s.active == "activating" || s.active == "active" || s.active == "reloading":
		case name == "wherry.socket" || main.active != "active": // starts with or without it
		case name == "wherry-cargo.service":
			add("wherry-cargo.service, which owns the control groups, is "+s.active, "systemctl restart wherry-keeper.service")
		default:
			add(name+" is "+s.active, "systemctl start "+name)
		}
	}
	if main.file != "enabled" && main.file != "enabled-runtime" {
		add("wherry.service does not start at boot", "systemctl enable wherry.service")
	}
	for _, name := range serviceNames {
		if all[name].stale {
			add("unit files have changed on disk", "systemctl daemon-reload")
			break
		}
	}
	if len(wrong) == 0 {
		text := "the services are in place, wherry.service starts at boot"
		if main.restarts != "" && main.restarts != "0" {
			text += "; it was restarted " + main.restarts + " times"
		}
		return fine(text)
	}
	return worst(strings.Join(wrong, "; "), strings.Join(remedies, "; "))
}

// worst: services of ours that do not run are an error, the rest is for later.
func worst(what, remedy string) finding {
	v := api.Warn
	if strings.Contains(what, "failed") || strings.Contains(what, "masked") || strings.Contains(what, "owns the control groups") {
		v = api.Fail
	}
	return finding{v, what, remedy}
}
