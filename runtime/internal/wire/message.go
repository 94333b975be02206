package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// Version is the newest version this program speaks, MinVersion the oldest.
const (
	Version    = 2
	MinVersion = 1
)

// Limits of one message. A container's spec is some 20 KiB; the largest honest
// body is the list of several hundred containers.
const (
	MaxBody = 16 << 20
	MaxFds  = 8
)

const (
	magic      = "WHRY"
	headerSize = 20
)

// ErrProtocol marks everything that makes a stream unusable.
var ErrProtocol = errors.New("protocol error")

// Type says what a message is.
type Type uint16

// Requests of the client. Every one is answered by Reply or Error with its id.
const (
	Hello      Type = 1
	Start      Type = 2
	List       Type = 3
	Get        Type = 4
	Signal     Type = 5
	Kill       Type = 6
	Wait       Type = 7
	Exec       Type = 8
	Remove     Type = 9
	Namespaces Type = 10
	Subscribe  Type = 11
	Upgrade    Type = 12
	Shutdown   Type = 13
	Cancel     Type = 14 // ends the request with the same id; not answered itself

	// Since version 2.
	MakeNamespaces    Type = 15 // body: runtime.Namespaces
	ReleaseNamespaces Type = 16
	Update            Type = 17
	Pause             Type = 18
	Resume            Type = 19
	Attach            Type = 20
	CloseStdin        Type = 21
	Root              Type = 22
	Heirlooms         Type = 23 // every change is a message Kept, until the connection ends
	GiveBack          Type = 24 // descriptors that an earlier keeper has left with the client
	AwaitExec         Type = 25 // the end of a process whose Exec an earlier keeper has begun
	Examine           Type = 26 // how the keeper itself fares
)

// Since is the version of the protocol that first knew the request.
func (t Type) Since() uint16 {
	if t >= MakeNamespaces && t < Reply {
		return 2
	}
	return 1
}

// Answers of the keeper.
const (
	Reply Type = 100
	Error Type = 101
	Event Type = 102 // on a subscribed connection, with the id of the Subscribe
	Kept  Type = 103 // as Event, with the id of the Heirlooms; since version 2
)

// Message is one message in either direction.
type Message struct {
	Version uint16
	Type    Type
	ID      uint32
	Body    []byte     // JSON, may be empty
	Files   []*os.File // the receiver closes them
}

// New makes a message whose body is v as JSON.
func New(t Type, id uint32, v any) (*Message, error) {
	m := &Message{Version: Version, Type: t, ID: id}
	if v == nil {
		return m, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("message %d: %w", t, err)
	}
	m.Body = b
	return m, nil
}

// Decode reads the body into v.
func (m *Message) Decode(v any) error {
	if err := json.Unmarshal(m.Body, v); err != nil {
		return fmt.Errorf("message %d: %w: %w", m.Type, ErrProtocol, err)
	}
	return nil
}

// CloseFiles closes the descriptors that nobody has taken.
func (m *Message) CloseFiles() {
	for _, f := range m.Files {
		if f != nil {
			f.Close()
		}
	}
	m.Files = nil
}

// header is the fixed part of a message.
type header struct {
	version uint16
	typ     Type
	id      uint32
	length  uint32
	fds     uint16
}

func (m *Message) encode() ([]byte, error) {
	if len(m.Body) > MaxBody {
		return nil, fmt.Errorf("message %d: %w: body of %d bytes", m.Type, ErrProtocol, len(m.Body))
	}
	if len(m.Files) > MaxFds {
		return nil, fmt.Errorf("message %d: %w: %d descriptors", m.Type, ErrProtocol, len(m.Files))
	}
	b := make([]byte, headerSize, headerSize+len(m.Body))
	copy(b, magic)
	binary.BigEndian.PutUint16(b[4:], m.Version)
	binary.BigEndian.PutUint16(b[6:], uint16(m.Type))
	binary.BigEndian.PutUint32(b[8:], m.ID)
	binary.BigEndian.PutUint32(b[12:], uint32(len(m.Body)))
	binary.BigEndian.PutUint16(b[16:], uint16(len(m.Files)))
	return append(b, m.Body...), nil
}

func parseHeader(b []byte) (header, error) {
	h := header{}
	if len(b) != headerSize || string(b[:4]) != magic {
		return h, fmt.Errorf("header: %w: not a wherry message", ErrProtocol)
	}
	h.version = binary.BigEndian.Uint16(b[4:])
	h.typ = Type(binary.BigEndian.Uint16(b[6:]))
	h.id = binary.BigEndian.Uint32(b[8:])
	h.length = binary.BigEndian.Uint32(b[12:])
	h.fds = binary.BigEndian.Uint16(b[16:])
	switch {
	case h.version == 0:
		return h, fmt.Errorf("header: %w: version 0", ErrProtocol)
	case h.length > MaxBody:
		return h, fmt.Errorf("header: %w: body of %d bytes", ErrProtocol, h.length)
	case h.fds > MaxFds:
		return h, fmt.Errorf("header: %w: %d descriptors", ErrProtocol, h.fds)
	}
	return h, nil
}

// Negotiate returns the version both sides speak.
func Negotiate(ours, theirs Versions) (uint16, error) {
	v := min(ours.Max, theirs.Max)
	if v < max(ours.Min, theirs.Min) {
		return 0, fmt.Errorf("versions %d to %d meet versions %d to %d: %w",
			ours.Min, ours.Max, theirs.Min, theirs.Max, ErrProtocol)
	}
	return v, nil
}

// Check refuses a request that the agreed version does not know.
func Check(t Type, agreed uint16) error {
	if need := t.Since(); need > agreed {
		return Needs(fmt.Sprintf("request %d", t), need, agreed)
	}
	return nil
}

// Needs is the error for what only a later version than the agreed one can say.
func Needs(what string, need, agreed uint16) error {
	return fmt.Errorf("%s: needs keeper protocol %d, agreed is %d: %w", what, need, agreed, errors.ErrUnsupported)
}

// Ours is the range of versions this program speaks.
func Ours() Versions { return Versions{Min: MinVersion, Max: Version} }
