// Package compat holds the compatibility tables: every error text, status and
// close rule of the NSQ protocol and of nsqd's HTTP API, one row per rule, over
// real sockets. See README.md for how to point them at any running server.
package compat
