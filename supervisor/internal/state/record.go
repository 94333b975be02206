package state

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"time"

	"github.com/wherry-run/wherry/supervisor/plan"
	"github.com/wherry-run/wherry/supervisor/unit"
)

// Unit is what is wanted of one unit, besides its revisions.
type Unit struct {
	Name       string      `json:"name"`
	Revision   int         `json:"revision"` // the current one
	Intent     plan.Intent `json:"intent"`
	Restart    int         `json:"restart,omitempty"` // see plan.Desired
	CreatedAt  time.Time   `json:"created_at"`
	AutoRemove bool        `json:"auto_remove,omitempty"` // removed once it has ended for good
	// Ports are the random host ports of the unit, by "PORT/PROTOCOL".
	Ports map[string]uint16 `json:"ports,omitempty"`
}

// Revision is one immutable version of a unit.
type Revision struct {
	Unit       string    `json:"unit"`
	Number     int       `json:"number"`
	Definition unit.Unit `json:"definition"`
	Text       string    `json:"text,omitempty"`   // the unit file as applied
	Source     string    `json:"source,omitempty"` // where the text came from
	By         string    `json:"by,omitempty"`
	AppliedAt  time.Time `json:"applied_at"`
	Digest     string    `json:"digest,omitempty"` // of the image, once it is known; of one container alone
	// Digests are those of several containers' images, by container.
	Digests map[string]string `json:"digests,omitempty"`
	// Stale says that the registry did not answer when Digest was looked for:
	// it is what was here (pull policy newer).
	Stale bool `json:"stale,omitempty"`
	// Same is the oldest revision whose runs need no replacement by this one's,
	// see unit.SameRun; 0 if there is none.
	Same int `json:"same,omitempty"`
	// Proposed is the digest of what a file said, if limits were changed since
	// by other means: that file again is nothing new.
	Proposed string `json:"proposed,omitempty"`
}

// ImageDigest is that of a container's image, empty if it is not known yet.
func (r *Revision) ImageDigest(container string) string {
	if len(r.Definition.Containers) > 1 {
		return r.Digests[container]
	}
	return r.Digest
}

// WithDigests is the revision with digests by container, which it did not know.
func (r Revision) WithDigests(digests map[string]string, stale bool) Revision {
	all := maps.Clone(r.Digests)
	for _, c := range r.Definition.Containers {
		switch d := digests[c.Name]; {
		case d == "" || r.ImageDigest(c.Name) != "":
		case len(r.Definition.Containers) == 1:
			r.Digest, r.Stale = d, stale
		default:
			if all == nil {
				all = map[string]string{}
			}
			all[c.Name], r.Stale = d, r.Stale || stale
		}
	}
	r.Digests = all
	return r
}

// Attempts is an instance's restart history, or that of one of its containers.
type Attempts struct {
	plan.Attempts
	Unit     string `json:"unit"`
	Instance string `json:"instance"`           // or INSTANCE/CONTAINER
	Within   string `json:"within,omitempty"`   // of a container: the run whose restarts these are
	Restarts int    `json:"restarts,omitempty"` // successful starts after the first
	Ended    *Ended `json:"ended,omitempty"`
}

// Ended is an instance's latest run that is over.
type Ended struct {
	Run       string    `json:"run"`
	Revision  int       `json:"revision"`
	Stopped   bool      `json:"stopped,omitempty"` // it was asked to end
	StartedAt time.Time `json:"started_at,omitzero"`
	EndedAt   time.Time `json:"ended_at"`
	Code      int       `json:"code"`
	Signal    string    `json:"signal,omitempty"`
	OOM       bool      `json:"oom,omitempty"`
	Unknown   bool      `json:"unknown,omitempty"`
	Cause     string    `json:"cause,omitempty"`
}

// File is a file of the units folder whose content was taken over.
type File struct {
	Path   string `json:"path"`
	Unit   string `json:"unit"`
	Digest string `json:"digest"` // of the content and of what it refers to
}

// Everything is the content of a store, read once at start-up.
type Everything struct {
	Units     map[string]Unit
	Revisions map[string][]Revision // by unit, oldest first
	Attempts  map[string]Attempts   // by instance
	Files     map[string]File       // by path
}

// Batch is a set of changes. A later change of the same record replaces the
// earlier one.
type Batch struct {
	changes map[change]json.RawMessage // nil: deleted
	err     error                      // a record that does not marshal
}

type change struct{ bucket, key string }

// Empty tells whether there is nothing to write.
func (b *Batch) Empty() bool { return len(b.changes) == 0 && b.err == nil }

// PutUnit and the others write a record.
func (b *Batch) PutUnit(u Unit) { b.put(bucketUnits, u.Name, u) }

// PutRevision writes a revision.
func (b *Batch) PutRevision(r Revision) { b.put(bucketRevisions, revisionKey(r.Unit, r.Number), r) }

// PutAttempts writes an instance's attempts.
func (b *Batch) PutAttempts(a Attempts) { b.put(bucketAttempts, a.Unit+"\x00"+a.Instance, a) }

// PutFile writes what is known of a file.
func (b *Batch) PutFile(f File) { b.put(bucketFiles, f.Path, f) }

// DeleteRevision deletes one revision.
func (b *Batch) DeleteRevision(unit string, number int) {
	b.drop(bucketRevisions, revisionKey(unit, number))
}

// DeleteAttempts deletes an instance's attempts.
func (b *Batch) DeleteAttempts(unit, instance string) { b.drop(bucketAttempts, unit+"\x00"+instance) }

// DeleteFile forgets a file.
func (b *Batch) DeleteFile(path string) { b.drop(bucketFiles, path) }

// DeleteUnit deletes a unit. Its revisions and attempts are the caller's to
// delete in the same batch.
func (b *Batch) DeleteUnit(name string) { b.drop(bucketUnits, name) }

func (b *Batch) put(bucket, key string, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		b.err = err
		return
	}
	b.set(change{bucket, key}, raw)
}

func (b *Batch) drop(bucket, key string) { b.set(change{bucket, key}, nil) }

func (b *Batch) set(c change, raw json.RawMessage) {
	if b.changes == nil {
		b.changes = map[change]json.RawMessage{}
	}
	b.changes[c] = raw
}

func revisionKey(unit string, number int) string {
	return unit + "\x00" + string(binary.BigEndian.AppendUint64(nil, uint64(number)))
}
