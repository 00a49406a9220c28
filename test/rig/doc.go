// Package rig is what the tests of real processes share: nodes that are started,
// killed and asked, a plain NSQ connection, and message bodies that name
// themselves.
package rig
