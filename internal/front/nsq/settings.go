package nsq

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
)

// logLevels are nsqd's names and numbers.
var logLevels = []struct {
	name   string
	number int
	level  slog.Level
}{
	{"debug", 1, slog.LevelDebug},
	{"info", 2, slog.LevelInfo},
	{"warn", 3, slog.LevelWarn},
	{"error", 4, slog.LevelError},
	{"fatal", 5, slog.LevelError + 4},
}

// setting is the value of an option under nsqd's configuration name; durations
// are nanoseconds, as in nsqd.
func (f *Front) setting(name string) (any, bool) {
	o := &f.o
	switch name {
	case "log_level":
		return f.logLevel(), true
	case "broadcast_address":
		return o.BroadcastAddress, true
	case "nsqlookupd_tcp_addresses":
		if o.Lookupds != nil {
			return o.Lookupds(), true
		}
		return []string{}, true
	case "auth_http_addresses":
		if o.Settings != nil {
			if v, ok := o.Settings(name); ok {
				return v, true
			}
		}
		return []string{}, true
	case "msg_timeout":
		return o.MsgTimeout, true
	case "max_msg_timeout":
		return o.MaxMsgTimeout, true
	case "max_msg_size":
		return o.MaxMsgSize, true
	case "max_body_size":
		return o.MaxBodySize, true
	case "max_req_timeout":
		return o.MaxReqTimeout, true
	case "max_defer_timeout":
		return o.MaxDeferTimeout, true
	case "max_heartbeat_interval":
		return o.MaxHeartbeatInterval, true
	case "max_rdy_count":
		return o.MaxRdyCount, true
	case "max_output_buffer_size":
		return o.MaxOutputBufferSize, true
	case "max_output_buffer_timeout":
		return o.MaxOutputBufferTimeout, true
	case "min_output_buffer_timeout":
		return o.MinOutputBufferTimeout, true
	case "output_buffer_timeout":
		return o.OutputBufferTimeout, true
	case "max_channel_consumers":
		return o.MaxChannelConsumers, true
	case "max_deflate_level":
		return o.MaxDeflateLevel, true
	case "topology_region":
		return o.TopologyRegion, true
	case "topology_zone":
		return o.TopologyZone, true
	}
	if o.Settings != nil {
		return o.Settings(name)
	}
	return nil, false
}

// logLevel is the level's number, the next louder one for levels between.
func (f *Front) logLevel() int {
	if f.o.LogLevel == nil {
		return 2
	}
	number := 1
	for _, l := range logLevels {
		if f.o.LogLevel.Level() >= l.level {
			number = l.number
		}
	}
	return number
}

func getConfig(f *Front, r *http.Request, _ url.Values) (any, error) {
	v, ok := f.setting(strings.TrimPrefix(r.URL.Path, "/config/"))
	if !ok {
		return nil, bad("INVALID_OPTION")
	}
	if text, ok := v.(string); ok {
		return text, nil // raw, as in nsqd
	}
	b, err := json.Marshal(v)
	return json.RawMessage(b), err
}

// putConfig changes log_level and nsqlookupd_tcp_addresses.
func putConfig(f *Front, r *http.Request, q url.Values) (any, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, f.o.MaxMsgSize+1))
	if err != nil {
		return nil, &httpError{http.StatusInternalServerError, "INTERNAL_ERROR"}
	}
	if len(body) == 0 || int64(len(body)) > f.o.MaxMsgSize {
		return nil, &httpError{http.StatusRequestEntityTooLarge, "INVALID_VALUE"}
	}
	switch strings.TrimPrefix(r.URL.Path, "/config/") {
	case "log_level":
		for _, l := range logLevels {
			if f.o.LogLevel != nil && strings.EqualFold(l.name, string(body)) {
				f.o.LogLevel.Set(l.level)
				return getConfig(f, r, q)
			}
		}
		return nil, bad("INVALID_VALUE")
	case "nsqlookupd_tcp_addresses":
		var addresses []string
		if json.Unmarshal(body, &addresses) != nil {
			return nil, bad("INVALID_VALUE")
		}
		if f.o.SetLookupds != nil {
			f.o.SetLookupds(addresses)
			if addresses == nil {
				return json.RawMessage("null"), nil
			}
			return getConfig(f, r, q)
		}
	}
	return nil, bad("INVALID_OPTION")
}
