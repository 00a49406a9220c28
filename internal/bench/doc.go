// Package bench measures message servers, ours and others, and believes none
// of them: every body carries its publisher, its sequence number and a check,
// and a run in which a message was lost, delivered twice, damaged or overtaken
// is a failure and not a number.
//
// A Workload says what is done, a Target is a running server, a Row is what
// came out. Run puts them together. Compare starts several servers on loopback
// and runs workloads against them in turn; Floor measures what this machine
// could do at best.
//
// Throughput is measured in a closed loop. Latency is measured in an open loop
// from the moment a message was meant to be sent, so that a server which stalls
// the publisher does not hide the stall.
package bench
