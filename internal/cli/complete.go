package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/cluster"
)

// completePatience is how long a shell waits for names in the middle of a line.
const completePatience = time.Second

// completer offers words to a shell. One that knows none, because no node
// answers say, offers none and is silent.
type completer func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective)

// completeFlag offers words for a flag that the command has.
func completeFlag(cmd *cobra.Command, flag string, f completer) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic("cli: " + err.Error()) // the flag was defined before
	}
}

// completeNothing keeps the shell from offering files where commands take no
// argument.
func completeNothing(root *cobra.Command) {
	for _, c := range root.Commands() {
		completeNothing(c)
		if !c.HasSubCommands() && !strings.Contains(c.Use, " ") && c.ValidArgsFunction == nil {
			c.ValidArgsFunction = cobra.NoFileCompletions
		}
	}
}

// briefly bounds what a completion asks a node.
func (srv *server) briefly(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	srv.timeout = min(srv.timeout, completePatience)
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	return context.WithTimeout(ctx, completePatience)
}

// complete offers the names of topics, then of the topic's channels.
func complete(cmd *cobra.Command, srv *server, a []string, words int) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := srv.briefly(cmd)
	defer cancel()
	var names []string
	switch {
	case len(a) == 0:
		st, err := srv.stats(ctx, "", "")
		if err != nil {
			break
		}
		for i := range st.Topics {
			names = append(names, st.Topics[i].Name)
		}
	case len(a) == 1 && words == 2:
		t, err := srv.topic(ctx, a[0])
		if err != nil {
			break
		}
		for i := range t.Channels {
			names = append(names, t.Channels[i].Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeNodes offers the names of the cluster's members, with their states.
func completeNodes(cmd *cobra.Command, srv *server) ([]string, cobra.ShellCompDirective) {
	var names []string
	for _, n := range srv.briefStatus(cmd).Nodes {
		if n.State != "gone" {
			names = append(names, fmt.Sprintf("%s\t%s, leads %d shards", n.Name, orDash(n.Lease), n.Leads))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeShards offers the numbers of the shards, with their leaders.
func completeShards(cmd *cobra.Command, srv *server) ([]string, cobra.ShellCompDirective) {
	var numbers []string
	for _, s := range srv.briefStatus(cmd).Shards {
		says := "no leader"
		if s.Leader != "" {
			says = "led by " + s.Leader
		}
		numbers = append(numbers, strconv.FormatUint(uint64(s.ID), 10)+"\t"+says)
	}
	return numbers, cobra.ShellCompDirectiveNoFileComp
}

// briefStatus is the cluster's status, empty if no node tells it soon.
func (srv *server) briefStatus(cmd *cobra.Command) cluster.Status {
	ctx, cancel := srv.briefly(cmd)
	defer cancel()
	st, err := srv.clusterStatus(ctx)
	if err != nil {
		return cluster.Status{}
	}
	return st
}

// completeContexts offers the names of contexts as the only argument.
func completeContexts(_ *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(a) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return contextsThere()
}

// contextsThere offers the names of contexts.
func contextsThere() ([]string, cobra.ShellCompDirective) {
	file, err := loadContexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return file.names(), cobra.ShellCompDirectiveNoFileComp
}
