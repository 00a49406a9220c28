package shard

import (
	"context"
	"fmt"
	"log/slog"
)

// RaftID is a Raft id as people read it, 16 hex characters.
type RaftID uint64

// String is the id.
func (id RaftID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// MarshalText is String, for logs.
func (id RaftID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// raftLogger hands the library's lines to slog: everything at debug, because
// what an operator must know about a group is logged by the group itself.
type raftLogger struct{ to *slog.Logger }

// raftPanic is what the library's Panic and Fatal throw. Step turns it into an
// error, so that a broken group stops its node in order instead of tearing the
// process down.
type raftPanic struct{ text string }

func (l raftLogger) print(v ...any) {
	if l.to.Enabled(context.Background(), slog.LevelDebug) {
		l.to.Debug(fmt.Sprint(v...))
	}
}

func (l raftLogger) printf(format string, v ...any) {
	if l.to.Enabled(context.Background(), slog.LevelDebug) {
		l.to.Debug(fmt.Sprintf(format, v...))
	}
}

func (l raftLogger) Debug(v ...any)            { l.print(v...) }
func (l raftLogger) Debugf(f string, v ...any) { l.printf(f, v...) }
func (l raftLogger) Info(v ...any)             { l.print(v...) }
func (l raftLogger) Infof(f string, v ...any)  { l.printf(f, v...) }

func (l raftLogger) Warning(v ...any)            { l.print(v...) }
func (l raftLogger) Warningf(f string, v ...any) { l.printf(f, v...) }
func (l raftLogger) Error(v ...any)              { l.print(v...) }
func (l raftLogger) Errorf(f string, v ...any)   { l.printf(f, v...) }

func (l raftLogger) Fatal(v ...any)            { panic(raftPanic{fmt.Sprint(v...)}) }
func (l raftLogger) Fatalf(f string, v ...any) { panic(raftPanic{fmt.Sprintf(f, v...)}) }
func (l raftLogger) Panic(v ...any)            { panic(raftPanic{fmt.Sprint(v...)}) }
func (l raftLogger) Panicf(f string, v ...any) { panic(raftPanic{fmt.Sprintf(f, v...)}) }
