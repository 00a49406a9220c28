// Command stand stands for an nsqd, under that name and with its flags, in front
// of a node that runs already: nsqjs' suite starts the server that it speaks to
// and kills it, at other ports each time, and a cluster is to be there before.
//
// It listens where -tcp-address and -http-address say, and passes connections on
// to the addresses in the environment, NODE_TCP and NODE_HTTP.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"
)

func main() {
	tcp := flag.String("tcp-address", "", "where NSQ's TCP protocol is expected")
	http := flag.String("http-address", "", "where nsqd's HTTP API is expected")
	for _, ignored := range []string{"broadcast-address", "data-path", "tls-cert", "tls-key"} {
		flag.String(ignored, "", "ignored: the node has its own")
	}
	flag.Parse()
	failed := make(chan error)
	go func() { failed <- pass(*tcp, os.Getenv("NODE_TCP")) }()
	go func() { failed <- pass(*http, os.Getenv("NODE_HTTP")) }()
	fmt.Fprintln(os.Stderr, "stand:", <-failed)
	os.Exit(1)
}

// pass joins what connects to an address with a node; it ends when it cannot
// listen.
func pass(addr, node string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		client, err := l.Accept()
		if err != nil {
			return err
		}
		server, err := net.Dial("tcp", node)
		if err != nil {
			client.Close()
			continue
		}
		go join(client, server)
		go join(server, client)
	}
}

// join copies one direction; an end or an error of it ends both.
func join(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	to.Close()
	from.Close()
}
