// Command tidings is a realtime message platform in one binary. `tidings dev`
// runs a durable node; `tidings help` lists the rest. Called by the name of an
// NSQ program (nsqd), it behaves as that program.
package main

import (
	"os"

	"github.com/tidings-io/tidings/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr)) }
