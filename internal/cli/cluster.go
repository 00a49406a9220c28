package cli

import (
	"github.com/spf13/cobra"
)

func newCluster(s streams) *cobra.Command {
	return parent("cluster", "Set up and look after a cluster of nodes", newClusterStatus(s), newClusterNodes(s), newClusterTransfer(s), newClusterShards(s), newClusterCert(s))
}
