package event

// The types of events. The word stands in api.Event.Type. The message is a
// clause without a subject: unit, instance and run stand in their own fields.
const (
	Apply        = "apply"         // a unit got a new revision
	ApplyFailed  = "apply_failed"  // a file of the units folder is not valid; what runs stays
	Intent       = "intent"        // somebody started, stopped or restarted a unit
	Pull         = "pull"          // an image was resolved for a revision
	Start        = "start"         // a run is up
	StartFailed  = "start_failed"  // a step of a start failed
	Adopt        = "adopt"         // a daemon found a container running
	Exit         = "exit"          // a run ended
	OOM          = "oom"           // the kernel killed a process of a run for memory
	Backoff      = "backoff"       // the next start waits
	GiveUp       = "give_up"       // the restart policy leaves the instance ended
	Stop         = "stop"          // a run is asked to end
	Severed      = "severed"       // somebody removed a run's network device
	Remove       = "remove"        // a unit is forgotten
	Cleanup      = "cleanup"       // what a run left could not be removed, or leftovers were found
	Exec         = "exec"          // somebody ran a process in a container
	Attach       = "attach"        // somebody attached to a container
	Debug        = "debug"         // somebody ran tools beside a container
	Copy         = "copy"          // somebody copied files from or to a container
	Reload       = "reload"        // the configuration was read again
	Daemon       = "daemon"        // the daemon started or ended
	Update       = "update"        // limits were changed, or could not be
	Pause        = "pause"         // somebody paused a container, or resumed it
	Hook         = "hook"          // a command of post_start or pre_stop has ended
	Signal       = "signal"        // somebody sent a container a signal
	Keeper       = "keeper"        // the keeper was away and is back, or was upgraded
	ImageGC      = "image_gc"      // images that nobody needed were deleted
	DiskPressure = "disk_pressure" // the disk is too full, or is no more
	Shutdown     = "shutdown"      // the host goes down, what of it has stopped or was killed
)

// Types lists every type, for documentation and completion.
func Types() []string {
	return []string{Apply, ApplyFailed, Intent, Pull, Start, StartFailed, Adopt, Exit, OOM, Backoff, GiveUp,
		Stop, Severed, Remove, Cleanup, Exec, Attach, Debug, Copy, Reload, Daemon, Update, Pause, Hook, Signal, Keeper, ImageGC, DiskPressure, Shutdown}
}
