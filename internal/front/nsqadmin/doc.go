// Package nsqadmin is nsqadmin's JSON API, over nsqlookupds and nsqds of
// whatever make.
//
// It keeps nothing: every answer is put together from those of its upstreams,
// asked over NSQ's HTTP APIs, all at once and each with its own timeout. So it
// works alike over real nsqlookupds and nsqds, over ours, and over both. An
// upstream that does not answer makes a warning in the message of the answer;
// if none does, the answer is 502 with UPSTREAM_ERROR. What is done to topics
// and channels is posted to all upstreams and told to a notification endpoint.
//
//	route.go    which path is what          respond.go   errors, JSON, compression
//	client.go   one request to an upstream  fanout.go    one to each of many
//	find.go     topics, producers, stats    act.go       create, delete, pause, empty, tombstone
//	producer.go, stats.go, latency.go       the shapes of nsqadmin's answers, and sums of them
//
// README.md tells where answers differ from nsqadmin's on purpose.
package nsqadmin
