// Package nsqadmin holds what has to be true of nsqadmin's API, as tables over
// real sockets. See README.md.
package nsqadmin
