// Command split listens where go-nsq's suite finds its server and hands each
// connection that subscribes to one node and every other to another: the suite
// publishes and consumes at one address, and a node that leads nothing has nothing
// for consumers.
//
// Usage: split LISTEN PUBLISH SUBSCRIBE
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: split LISTEN PUBLISH SUBSCRIBE")
		os.Exit(2)
	}
	l, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go func() {
			defer conn.Close()
			if err := split(conn, os.Args[2], os.Args[3]); err != nil {
				fmt.Fprintln(os.Stderr, "split:", err)
			}
		}()
	}
}

// split joins a client with the node for publishers, and with the other one as
// soon as it subscribes.
func split(client net.Conn, publish, subscribe string) error {
	node, err := net.Dial("tcp", publish)
	if err != nil {
		return err
	}
	defer func() { node.Close() }()
	r := bufio.NewReader(client)
	hello, err := identify(r)
	if err != nil {
		return err
	}
	if _, err := node.Write(hello); err != nil {
		return err
	}
	answer, err := frame(node)
	if err != nil {
		return err
	}
	if _, err := client.Write(answer); err != nil {
		return err
	}
	word, err := r.Peek(4)
	if err != nil {
		return ended(err) // went away again
	}
	if string(word) == "SUB " {
		other, err := net.Dial("tcp", subscribe)
		if err != nil {
			return err
		}
		node.Close()
		node = other
		if _, err := node.Write(hello); err != nil {
			return err
		}
		if _, err := frame(node); err != nil { // the client has had it
			return err
		}
	}
	go func() {
		if _, err := io.Copy(client, node); ended(err) != nil {
			fmt.Fprintln(os.Stderr, "split:", err)
		}
		client.Close()
	}()
	_, err = io.Copy(node, r)
	return ended(err)
}

// identify reads the magic and IDENTIFY with its body.
func identify(r *bufio.Reader) ([]byte, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, ended(err)
	}
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "IDENTIFY") {
		return nil, fmt.Errorf("no IDENTIFY: %q %w", line, err)
	}
	size := make([]byte, 4)
	if _, err := io.ReadFull(r, size); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(size))
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	return append(append(append(head, line...), size...), body...), nil
}

// frame reads one whole frame.
func frame(r io.Reader) ([]byte, error) {
	size := make([]byte, 4)
	if _, err := io.ReadFull(r, size); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(size))
	_, err := io.ReadFull(r, body)
	return append(size, body...), err
}

// ended turns the ways in which a connection ends into none.
func ended(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}
