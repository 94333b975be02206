package layer

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// A POSIX ACL as an attribute: include/uapi/linux/posix_acl_xattr.h.
const (
	aclVersion   = 2
	aclHeader    = 4
	aclEntry     = 8
	aclUserObj   = 0x01
	aclUser      = 0x02
	aclGroupObj  = 0x04
	aclGroup     = 0x08
	aclMask      = 0x10
	aclOther     = 0x20
	aclUndefined = 1<<32 - 1
)

// canonicalACL gives an ACL the form that a file system reads it back in: the
// permissions of the mode win, as after chmod(2), and one that says no more
// than the mode is none (posix_acl_equiv_mode in fs/posix_acl.c). EROFS keeps
// the bytes as they are, so they have to be right here.
func canonicalACL(v string, mode uint32, access bool) (acl string, keep bool, err error) {
	b := []byte(v)
	if len(b) < aclHeader || (len(b)-aclHeader)%aclEntry != 0 || binary.LittleEndian.Uint32(b) != aclVersion {
		return "", false, unix.EINVAL
	}
	if !access && mode&unix.S_IFMT != unix.S_IFDIR {
		return "", false, nil // only folders have a default
	}
	group, named, err := checkACL(b[aclHeader:])
	if err != nil {
		return "", false, err
	}
	if access && group != nil {
		for e := b[aclHeader:]; len(e) > 0; e = e[aclEntry:] {
			switch binary.LittleEndian.Uint16(e) {
			case aclUserObj:
				binary.LittleEndian.PutUint16(e[2:], uint16(mode>>6&7))
			case aclOther:
				binary.LittleEndian.PutUint16(e[2:], uint16(mode&7))
			}
		}
		binary.LittleEndian.PutUint16(group[2:], uint16(mode>>3&7))
	}
	return string(b), group != nil && (named || !access), nil
}

// checkACL is posix_acl_valid of the kernel. group is the entry that shows in the
// mode as the group's permissions, nil if there is none at all; named: there
// are entries that the mode cannot say.
func checkACL(b []byte) (group []byte, named bool, err error) {
	last, mask := uint16(0), false
	seen := map[uint16]bool{}
	for e := b; len(e) > 0; e = e[aclEntry:] {
		tag, perm, id := binary.LittleEndian.Uint16(e), binary.LittleEndian.Uint16(e[2:]), binary.LittleEndian.Uint32(e[4:])
		single := tag != aclUser && tag != aclGroup
		if perm > 7 || tag < last || single && seen[tag] || !single && id == aclUndefined {
			return nil, false, unix.EINVAL
		}
		switch tag {
		case aclUser, aclGroup:
			named = true
		case aclMask:
			mask, group = true, e
		case aclGroupObj:
			group = e
		case aclUserObj, aclOther:
		default:
			return nil, false, unix.EINVAL
		}
		if single {
			binary.LittleEndian.PutUint32(e[4:], aclUndefined)
		}
		seen[tag], last = true, tag
	}
	if len(b) > 0 && (!seen[aclUserObj] || !seen[aclGroupObj] || !seen[aclOther] || named && !mask) {
		return nil, false, unix.EINVAL
	}
	return group, named || mask, nil
}
