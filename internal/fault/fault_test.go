package fault

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestEveryCodeHasARow(t *testing.T) {
	names := map[string]Code{}
	for c := range codes {
		r := table[c]
		if r.name == "" || r.text == "" || r.status == 0 {
			t.Errorf("code %d: row is incomplete: %+v", c, r)
		}
		if other, taken := names[r.name]; taken {
			t.Errorf("codes %d and %d share the name %s", c, other, r.name)
		}
		names[r.name] = c
	}
}

func TestMatching(t *testing.T) {
	inner := Wrap(Storage, io.ErrUnexpectedEOF)
	tests := []struct {
		name string
		err  error
		code Code
		is   []error
		text string
	}{
		{"nil", nil, None, nil, ""},
		{"bare", TopicNotFound, TopicNotFound, []error{TopicNotFound}, "topic not found"},
		{"new", New(Overloaded, "publish to %s", "a"), Overloaded, []error{Overloaded}, "publish to a"},
		{"wrapped", inner, Storage, []error{Storage, io.ErrUnexpectedEOF}, "unexpected EOF"},
		{"re-coded", Wrap(Timeout, inner), Timeout, []error{Timeout, Storage, io.ErrUnexpectedEOF}, "unexpected EOF"},
		{"below fmt", fmt.Errorf("open log: %w", inner), Storage, []error{Storage}, "open log: unexpected EOF"},
		{"joined", errors.Join(io.EOF, Exiting), Exiting, []error{Exiting, io.EOF}, "EOF\nexiting"},
		{"text and cause", &Error{Code: Corrupt, Text: "read batch", Cause: io.EOF}, Corrupt, []error{Corrupt, io.EOF}, "read batch: EOF"},
		{"code alone", &Error{Code: NotLeader}, NotLeader, []error{NotLeader}, "no leader"},
		{"unnamed", io.EOF, Internal, []error{io.EOF}, "EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := CodeOf(tt.err); got != tt.code {
				t.Errorf("CodeOf = %v, want %v", got, tt.code)
			}
			for _, target := range tt.is {
				if !errors.Is(tt.err, target) {
					t.Errorf("errors.Is(%v) = false", target)
				}
			}
			if tt.err != nil && tt.err.Error() != tt.text {
				t.Errorf("text = %q, want %q", tt.err, tt.text)
			}
			if tt.err != nil && errors.Is(tt.err, Forbidden) {
				t.Error("matches a code that it does not carry")
			}
		})
	}
	if Wrap(Storage, nil) != nil {
		t.Error("Wrap(nil) is not nil")
	}
}

func TestFronts(t *testing.T) {
	tests := []struct {
		code    Code
		command string
		nsq     string
		stays   bool
		status  int
		message string
	}{
		{DiskReserve, "MPUB", "E_MPUB_FAILED", false, 503, "DISK_RESERVE"},
		{NotInFlight, "FIN", "E_FIN_FAILED", true, 409, "NOT_IN_FLIGHT"},
		{NotOwner, "TOUCH", "E_TOUCH_FAILED", true, 409, "NOT_OWNER"},
		{InvalidTopic, "PUB", "E_BAD_TOPIC", false, 400, "INVALID_TOPIC"},
		{TopicNotFound, "SUB", "E_SUB_FAILED", false, 404, "TOPIC_NOT_FOUND"},
		{Code(250), "PUB", "E_PUB_FAILED", false, 500, "INTERNAL_ERROR"},
	}
	for _, tt := range tests {
		if got := tt.code.NSQ(tt.command); got != tt.nsq {
			t.Errorf("%v: NSQ = %s, want %s", tt.code, got, tt.nsq)
		}
		if got := tt.code.Stays(); got != tt.stays {
			t.Errorf("%v: Stays = %v", tt.code, got)
		}
		if status, message := tt.code.HTTP(); status != tt.status || message != tt.message {
			t.Errorf("%v: HTTP = %d %s, want %d %s", tt.code, status, message, tt.status, tt.message)
		}
	}
}
