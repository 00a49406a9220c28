// Package accept takes connections off a listener, as every TCP front does.
package accept

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// pause is how long Loop rests after an error that will pass: the process is out
// of file descriptors, or the client has gone already.
const pause = 10 * time.Millisecond

// Loop hands connections to welcome, which must not block, until ctx ends: that
// closes the listener, and is no error. It returns an error when somebody else
// has closed the listener.
func Loop(ctx context.Context, l net.Listener, log *slog.Logger, welcome func(net.Conn)) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			welcome(nc)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept connection: %w", err)
		default:
			log.Warn("accept connection", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}
}
