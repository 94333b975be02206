package unit

import (
	"slices"
)

// later is a key that design knows and this version does not read yet.
func later[T any](name, typ, text string) field[T] {
	return field[T]{Key: Key{Name: name, Type: typ, Text: text, Later: true}}
}

// known is a key that works.
func known[T any](name, typ, instead, text string, set func(*reader, *node, *T)) field[T] {
	return field[T]{Key: Key{Name: name, Type: typ, Default: instead, Text: text}, set: set}
}

// into is a key whose value is a map with keys of its own.
func into[T, S any](name, text string, sub table[S], to func(*T) *S) field[T] {
	f := known(name, "map", "", text, func(p *reader, n *node, t *T) { sub.fill(p, n, to(t)) })
	f.Keys = sub.keys()
	return f
}

// containerFields are the keys that belong to one container. They stand at the top, or
// under containers.NAME if there are several.
var containerFields = slices.Concat([]field[draft]{
	known("image", "image", "", "The image the container starts from. The only key that must be there, unless there is containers.", (*reader).setImage),
	known("pull_policy", "word", "missing", "When the registry is asked what the image's name means, once a revision: missing (if it is not here), always, never, or newer (always, but what is here will do if the registry does not answer).", (*reader).setPull),
	withKeys(known("registry_auth", "map", "wherry.yaml's for the registry", "Credentials for the image's registry: username and password_file, or token_file, docker_config or helper. Secrets stand in files, which are read at every pull.",
		(*reader).setRegistryAuth), registryAuthTable.keys()),
	known("entrypoint", "list or text", "the image's", "The program. Text is split as a shell does. The image's command is then not used.",
		func(p *reader, n *node, d *draft) { d.app.Entrypoint = p.command(n) }),
	known("command", "list or text", "the image's", "The arguments, or the program if there is no entrypoint.",
		func(p *reader, n *node, d *draft) { d.app.Command = p.command(n) }),
	known("environment", "map or list", "", "Environment variables, over the image's and those of env_file.",
		func(p *reader, n *node, d *draft) { p.assignments(n, d.env, passHint) }),
	withKeys(known("env_file", "list of files", "", "Files of NAME=value lines; later ones win. A path or a map.",
		(*reader).setEnvFile), envFileTable.keys()),
	known("working_dir", "path", "the image's", "The folder the program starts in.", (*reader).setWorkingDir),
	known("user", "user[:group]", "the image's", "Who runs it, by names or ids.", (*reader).setUser),
	withKeys(known("volumes", "list of mounts", "", "\"NAME:/target\", \"./folder:/target:ro\", \"/target\" (a volume without a name) or maps.",
		(*reader).setVolumes), volumeTable.keys()),
	known("stop_signal", "signal", "the image's, else SIGTERM", "What asks it to stop, by name or number.", (*reader).setStopSignal),
	known("stop_grace_period", "duration", defaultGrace.String(), "How long it may take to stop before it is killed.", (*reader).setGrace),
	known("init", "boolean", "true", "Whether a small init is the first process: it reaps, forwards signals and records the true exit.",
		func(p *reader, n *node, d *draft) { p.flag(n, &d.app.Init) }),
	known("read_only", "boolean", "false", "Whether the root file system is read-only.",
		func(p *reader, n *node, d *draft) { p.flag(n, &d.app.ReadOnly) }),
	known("cap_add", "list of words", "", "Capabilities added to the default set, without CAP_; ALL for every one.",
		func(p *reader, n *node, d *draft) { d.app.CapAdd = p.capabilities(n) }),
	known("cap_drop", "list of words", "", "Capabilities taken from the default set.",
		func(p *reader, n *node, d *draft) { d.app.CapDrop = p.capabilities(n) }),
	into("storage_opt", "Bounds of what it writes to its own root file system.", storageTable, func(d *draft) *StorageOpt { return &d.app.StorageOpt }),
	into("logging", "Bounds of the log files.", loggingTable, func(d *draft) *Logging { return &d.app.Logging }),
}, lift(containerLimits, func(d *draft) *Container { return d.app }), lift(containerOpenings, func(d *draft) *Container { return d.app }),
	lift(containerHooks, func(d *draft) *Container { return d.app }), []field[draft]{
		later[draft]("secrets", "list", "Secret files."),
		later[draft]("configs", "list", "Configuration files."),
		later[draft]("probes", "map", "Checks of start, life and readiness."),
	})

// unitFields are the keys that belong to a unit as a whole.
var unitFields = slices.Concat([]field[draft]{
	known("kind", "word", "service", "What the unit is: service.", (*reader).setKind),
	known("name", "name", "the file's name without its ending", "The unit's name.", (*reader).setName),
	known("replicas", "number", "1", "How many instances run side by side.", (*reader).setReplicas),
	known("network", "word", "bridge", "bridge, host or none.", (*reader).setNetwork),
	withKeys(known("ports", "list of ports", "", "Ports published on the host: 80, \"8080:80\", \"127.0.0.1:8080:80/udp\", \"8000-8002:8000-8002\" or maps. Without a host port a free one is taken. Replicas share a port.",
		(*reader).setPorts), portTable.keys()),
	withKeys(known("depends_on", "map or list", "", "Units that must be up first, by name.", (*reader).setDependsOn), dependencyTable.keys()),
	known("restart", "word", "always", "Short for restart_policy: no, always, unless-stopped, on-failure or on-failure:5.", (*reader).setRestart),
	withKeys(known("restart_policy", "map", "", "What happens after an end or a failed start.", (*reader).setRestartPolicy), restartTable.keys()),
	known("labels", "map or list", "", "Words of your own.", (*reader).setLabels),
}, lift(unitOpenings, func(d *draft) *Unit { return &d.unit }))

// unitTable is every key of a unit file.
var unitTable = table[draft]{
	fields: slices.Concat(unitFields, []field[draft]{
		withKeys(known("containers", "map", "", "Several containers, by name: each with the keys of one container instead of those at the top, and with essential and depends_on.",
			(*reader).setContainers), containerOwn.keys()),
	}, containerFields, []field[draft]{
		later[draft]("parameters", "map", "Typed values for ${NAME}."),
		later[draft]("environments", "map", "Values of parameters by environment."),
		later[draft]("update_config", "map", "How a new revision replaces the old one."),
		later[draft]("revision_history_limit", "number", "How many revisions are kept."),
		later[draft]("backoff_limit", "number", "Of a job: how often it is tried again."),
		later[draft]("active_deadline", "duration", "Of a job: how long it may take."),
		later[draft]("ttl_after_finished", "duration", "Of a job: how long it is kept."),
		later[draft]("schedule", "cron", "Of a cron job: when it runs."),
		later[draft]("time_zone", "word", "Of a cron job."),
		later[draft]("concurrency_policy", "word", "Of a cron job: what a run does that finds one running."),
		later[draft]("starting_deadline", "duration", "Of a cron job: how late it may start."),
		later[draft]("suspend", "boolean", "Of a cron job: not to run for now."),
		later[draft]("persistent", "boolean", "Of a cron job: to make up for missed runs."),
		later[draft]("randomized_delay", "duration", "Of a cron job: to spread starts."),
		later[draft]("successful_jobs_history_limit", "number", "Of a cron job."),
		later[draft]("failed_jobs_history_limit", "number", "Of a cron job."),
	}),
	elsewhere: merged(merged(openingsElsewhere, limitsElsewhere), map[string]string{
		"args": "write command", "cmd": "write command", "env": "write environment", "container_name": "write name",
		"healthcheck": "write probes", "deploy": "its keys stand at the top: replicas, resources, restart_policy",
		"build": "wherry builds no images", "services": "write one unit a file, its keys at the top",
		"version": "leave it out", "limits": "write resources: {limits: ...}", "cpus": "write resources: {limits: {cpus: ...}}",
		"memory": "write resources: {limits: {memory: ...}}", "mem_limit": "write resources: {limits: {memory: ...}}",
		"pids_limit": "write resources: {limits: {pids: ...}}", "tmpfs": "write volumes: [{type: tmpfs, target: ...}]",
		"registry_credentials": "write registry_auth", "imagePullSecrets": "write registry_auth", "imagePullPolicy": "write pull_policy",
		"network_mode": "write network", "networks": "write network", "expose": "units reach each other's ports without it",
		"secret": "write secrets", "scale": "write replicas", "workdir": "write working_dir", "mounts": "write volumes",
		"essential": "it belongs under containers: {NAME: ...}", "container": "write containers", "sidecars": "write containers",
		"init_containers": "write containers, and depends_on: {NAME: {condition: completed_successfully}}",
	}),
}

// withKeys adds the keys of the maps in a value, for the reference.
func withKeys[T any](f field[T], keys []Key) field[T] {
	f.Keys = keys
	return f
}

var loggingTable = table[Logging]{
	fields: slices.Concat(loggingModes, []field[Logging]{
		known("max_size", "size", Size(defaultLogSize).String(), "A log file is rotated when it is this large.", func(p *reader, n *node, l *Logging) {
			l.MaxSize, _ = parsed(p, n, parseLogSize)
		}),
		known("max_file", "number", "3", "How many files are kept.", func(p *reader, n *node, l *Logging) {
			l.MaxFile, _ = parsed(p, n, parseLogFiles)
		}),
		later[Logging]("targets", "list", "Where the log is sent as well."),
	}),
	elsewhere: map[string]string{
		"driver":   "wherry writes the log files itself; set max_size and max_file",
		"options":  "write max_size and max_file here",
		"max-size": "write max_size", "max-file": "write max_file", "max-buffer-size": "write max_buffer_size",
	},
}
