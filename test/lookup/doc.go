// Package lookup holds what has to be true of nsqlookupd's protocol and API, in
// both directions, as tables over real sockets. See README.md.
package lookup
