package broker

import "strings"

// nameMax is the longest topic or channel name in bytes, its suffix included.
const nameMax = 64

// ephemeralSuffix ends the names of topics and channels that live in memory
// only and go with their last user.
const ephemeralSuffix = "#ephemeral"

// ValidTopic reports whether the name may be a topic's:
// ^[.a-zA-Z0-9_-]+(#ephemeral)?$, 1 to 64 bytes (NSQ's rule).
func ValidTopic(name string) bool { return validName(name) }

// ValidChannel reports whether the name may be a channel's; the rule is the
// topics'.
func ValidChannel(name string) bool { return validName(name) }

// IsEphemeral reports whether the name is that of a topic or channel that
// lives in memory only.
func IsEphemeral(name string) bool { return strings.HasSuffix(name, ephemeralSuffix) }

func validName(name string) bool {
	if len(name) > nameMax {
		return false
	}
	stem := strings.TrimSuffix(name, ephemeralSuffix)
	for i := range len(stem) {
		switch c := stem[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return stem != ""
}
