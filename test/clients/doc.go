// Package clients tests what stock clients feel of a cluster: consumers of go-nsq and
// nsqjs that know one address, or lookups, while leaders are killed.
//
// The tests are run by test/clients/run, in a private network namespace, because a
// cluster's nodes have to know each other's ports. It sets
//
//	CLIENTS_BINARY  the tidings binary under test
//	CLIENTS_NSQJS   a folder in which nsqjs is installed
//	CLIENTS_KILLS   how often a leader is killed under go-nsq and nsqjs (2)
//	CLIENTS_MANY    how many stock consumers feel one more kill (100)
//
// Without CLIENTS_BINARY nothing here runs.
package clients
