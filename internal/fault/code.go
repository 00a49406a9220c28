package fault

import (
	"net/http"
	"strconv"
)

// Code says what went wrong. The numbers are local to the process: they are
// never written to a file or a wire, the names are.
type Code uint8

// The codes. The texts, NSQ codes and HTTP statuses stand in the table below.
const (
	None             Code = iota // no error
	Internal                     // a bug, or an error nobody named
	InvalidRequest               // malformed command or parameter
	InvalidTopic                 // not a topic name
	InvalidChannel               // not a channel name
	MissingTopic                 // no topic given
	MissingChannel               // no channel given
	TopicNotFound                // no such topic
	ChannelNotFound              // no such channel
	MessageEmpty                 // a message of zero bytes
	MessageTooBig                // a message above its limit
	BodyEmpty                    // a request body of zero bytes
	BodyTooBig                   // a request body above its limit
	InvalidDefer                 // a delay out of range
	InvalidOption                // no such configuration option
	InvalidValue                 // not a value of the option
	NotInFlight                  // the message is not in flight
	NotOwner                     // the message is in flight to someone else
	TooManyConsumers             // the channel's consumer limit is reached
	Deleting                     // the topic or channel is being deleted
	Exiting                      // the node shuts down
	NotLeader                    // no leader here, or leadership was lost before the answer
	Unreachable                  // another node that is needed cannot be reached
	OutOfOrder                   // not next in its producer's sequence; nothing was done
	Overloaded                   // a bounded queue is full
	DiskReserve                  // the disk is full down to the reserve
	Timeout                      // not answered in time; it may still happen
	Storage                      // the disk failed
	Corrupt                      // stored bytes are damaged
	Unsupported                  // known, but not by this version or node
	Forbidden                    // not allowed to this client
	SpoolFull                    // an edge holds as much as it may, and can't forward it now
	Moved                        // published by an older number of partitions; nothing was done, publish anew

	codes // how many there are
)

// row is where a code shows.
type row struct {
	name string // upper case, also the HTTP message unless http says otherwise
	text string // for humans; nsqd's own words where clients compare them
	// nsq is the NSQ error code; empty means the failed command's own,
	// E_<COMMAND>_FAILED.
	nsq    string
	status int
	// stays: the connection stays open after the error frame.
	stays bool
}

// table follows nsqd v1.3.0 (nsqd/protocol_v2.go, nsqd/http.go) wherever nsqd
// has the error.
var table = [codes]row{
	None:             {name: "OK", text: "no error", status: http.StatusOK, stays: true},
	Internal:         {name: "INTERNAL_ERROR", text: "internal error", status: http.StatusInternalServerError},
	InvalidRequest:   {name: "INVALID_REQUEST", text: "invalid request", nsq: "E_INVALID", status: http.StatusBadRequest},
	InvalidTopic:     {name: "INVALID_TOPIC", text: "topic name is not valid", nsq: "E_BAD_TOPIC", status: http.StatusBadRequest},
	InvalidChannel:   {name: "INVALID_ARG_CHANNEL", text: "channel name is not valid", nsq: "E_BAD_CHANNEL", status: http.StatusBadRequest},
	MissingTopic:     {name: "MISSING_ARG_TOPIC", text: "topic is missing", nsq: "E_INVALID", status: http.StatusBadRequest},
	MissingChannel:   {name: "MISSING_ARG_CHANNEL", text: "channel is missing", nsq: "E_INVALID", status: http.StatusBadRequest},
	TopicNotFound:    {name: "TOPIC_NOT_FOUND", text: "topic not found", status: http.StatusNotFound},
	ChannelNotFound:  {name: "CHANNEL_NOT_FOUND", text: "channel not found", status: http.StatusNotFound},
	MessageEmpty:     {name: "MSG_EMPTY", text: "message is empty", nsq: "E_BAD_MESSAGE", status: http.StatusBadRequest},
	MessageTooBig:    {name: "MSG_TOO_BIG", text: "message is too big", nsq: "E_BAD_MESSAGE", status: http.StatusRequestEntityTooLarge},
	BodyEmpty:        {name: "BODY_EMPTY", text: "body is empty", nsq: "E_BAD_BODY", status: http.StatusBadRequest},
	BodyTooBig:       {name: "BODY_TOO_BIG", text: "body is too big", nsq: "E_BAD_BODY", status: http.StatusRequestEntityTooLarge},
	InvalidDefer:     {name: "INVALID_DEFER", text: "delay is out of range", nsq: "E_INVALID", status: http.StatusBadRequest},
	InvalidOption:    {name: "INVALID_OPTION", text: "option is not known", nsq: "E_INVALID", status: http.StatusBadRequest},
	InvalidValue:     {name: "INVALID_VALUE", text: "value is not valid", nsq: "E_INVALID", status: http.StatusBadRequest},
	NotInFlight:      {name: "NOT_IN_FLIGHT", text: "ID not in flight", status: http.StatusConflict, stays: true},
	NotOwner:         {name: "NOT_OWNER", text: "client does not own message", status: http.StatusConflict, stays: true},
	TooManyConsumers: {name: "TOO_MANY_CONSUMERS", text: "channel has as many consumers as allowed", status: http.StatusServiceUnavailable},
	Deleting:         {name: "DELETING", text: "being deleted", status: http.StatusServiceUnavailable},
	Exiting:          {name: "EXITING", text: "exiting", status: http.StatusServiceUnavailable},
	NotLeader:        {name: "NO_LEADER", text: "no leader", status: http.StatusServiceUnavailable},
	Unreachable:      {name: "UNREACHABLE", text: "node cannot be reached", status: http.StatusServiceUnavailable},
	OutOfOrder:       {name: "OUT_OF_ORDER", text: "not next in its sequence", status: http.StatusServiceUnavailable},
	Overloaded:       {name: "OVERLOADED", text: "overloaded", status: http.StatusServiceUnavailable},
	DiskReserve:      {name: "DISK_RESERVE", text: "disk reserve reached", status: http.StatusServiceUnavailable},
	Timeout:          {name: "TIMEOUT", text: "not answered in time", status: http.StatusServiceUnavailable},
	Storage:          {name: "STORAGE_FAILED", text: "storage failed", status: http.StatusInternalServerError},
	Corrupt:          {name: "CORRUPT", text: "stored data is damaged", status: http.StatusInternalServerError},
	Unsupported:      {name: "UNSUPPORTED", text: "not supported", nsq: "E_INVALID", status: http.StatusNotImplemented},
	Forbidden:        {name: "FORBIDDEN", text: "not allowed", nsq: "E_UNAUTHORIZED", status: http.StatusForbidden},
	SpoolFull:        {name: "SPOOL_FULL", text: "spool is full", status: http.StatusServiceUnavailable},
	Moved:            {name: "MOVED", text: "the topic has more partitions by now", status: http.StatusServiceUnavailable},
}

// String is the code's name in upper case.
func (c Code) String() string {
	if c >= codes {
		return "CODE_" + strconv.Itoa(int(c))
	}
	return table[c].name
}

// Error is the code's text for humans.
func (c Code) Error() string {
	if c >= codes {
		return c.String()
	}
	return table[c].text
}

// HTTP is the status and the value of "message" in the JSON body of nsqd's
// HTTP API.
func (c Code) HTTP() (status int, message string) {
	if c >= codes {
		return http.StatusInternalServerError, table[Internal].name
	}
	return table[c].status, table[c].name
}

// NSQ is the code in an NSQ error frame for a failed command (PUB, FIN …).
func (c Code) NSQ(command string) string {
	if c < codes && table[c].nsq != "" {
		return table[c].nsq
	}
	return "E_" + command + "_FAILED"
}

// Stays reports whether an NSQ connection stays open after this error; all
// others close it.
func (c Code) Stays() bool { return c < codes && table[c].stays }
