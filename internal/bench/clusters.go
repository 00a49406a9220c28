package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/transport"
)

// clusterNodes is the size of the clusters that Compare starts.
const clusterNodes = 3

// The ports of a node of a cluster, by their numbers.
const (
	portClients = iota // NSQ TCP, or NATS
	portHTTP           // nsqd's HTTP API, or NATS' monitoring
	portNodes          // of the other nodes
	portAdmin          // tidings only
)

// TidingsClusterSpec starts three nodes of our own with default settings.
func TidingsClusterSpec(path string) ClusterSpec {
	return ClusterSpec{
		Name: OurCluster, Nodes: clusterNodes, Ports: 4, Files: certificates,
		Node: func(i int, shared string, ports [][]int) Spec {
			name := nodeName(i)
			seeds := make([]string, len(ports))
			for k, p := range ports {
				seeds[k] = nodeName(k) + "=" + loopback(p[portNodes])
			}
			return Spec{Name: Ours, Path: path, Args: func(dir string, own []int) []string {
				return []string{
					"serve", "--node", name, "--seeds", strings.Join(seeds, ","), "--cluster-address", loopback(own[portNodes]),
					"--cluster-ca", shared + "/ca.crt", "--cluster-cert", shared + "/" + name + ".crt", "--cluster-key", shared + "/" + name + ".key",
					"--data-path", dir + "/data", "--tcp-address", loopback(own[portClients]), "--http-address", loopback(own[portHTTP]),
					"--admin-address", loopback(own[portAdmin]), "--lookup-tcp-address=", "--lookup-http-address=", "--nsqadmin-http-address=", "--log-level", "warn",
				}
			}}
		},
		Target: func(s *Server) Target { return &NSQ{TCP: s.Addr(portClients), HTTP: s.Addr(portHTTP)} },
		Whole:  tidingsWhole, Leader: tidingsLeader,
		Answers: 6 * time.Second, // a node answers within 5 s, come what may
	}
}

// certificates makes an authority, and what each node needs of it.
func certificates(dir string) error {
	const good = 24 * time.Hour
	now := time.Now()
	authority, err := transport.NewAuthority(now, good)
	if err != nil {
		return err
	}
	ca, _, err := authority.PEM()
	if err != nil {
		return err
	}
	files := map[string][]byte{"ca.crt": ca}
	for i := range clusterNodes {
		name := nodeName(i)
		if files[name+".crt"], files[name+".key"], err = authority.Issue(name, []string{"127.0.0.1"}, now, good); err != nil {
			return err
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return fmt.Errorf("write certificate: %w", err)
		}
	}
	return nil
}

// get reads what a server's HTTP address answers.
func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s: %.200s", url, res.Status, body)
	}
	return body, err
}

// tidingsStatus is the cluster as one node sees it.
func tidingsStatus(ctx context.Context, s *Server) (st cluster.Status, err error) {
	body, err := get(ctx, "http://"+s.Addr(portAdmin)+"/api/cluster")
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(body, &st)
}

func tidingsWhole(ctx context.Context, c *Cluster) error {
	var begun map[uint32]uint64 // commit index of each shard when this was asked
	return c.await(ctx, func(ctx context.Context) error {
		commits := make(map[uint32]uint64)
		for _, s := range c.nodes {
			st, err := tidingsStatus(ctx, s)
			if err != nil {
				return err
			}
			if !st.Healthy {
				return fmt.Errorf("%s says: %s", st.Node, st.Waits)
			}
			for _, sh := range st.Shards {
				commits[sh.ID] = max(commits[sh.ID], sh.Commit)
				for _, r := range sh.Replicas {
					if !r.Live || r.Applied < begun[sh.ID] {
						return fmt.Errorf("%s says: %s has %d of %d in shard %d", st.Node, r.Node, r.Applied, begun[sh.ID], sh.ID)
					}
				}
			}
		}
		if begun == nil {
			begun = commits
			return errors.New("not asked twice yet")
		}
		return nil
	})
}

// tidingsLeader finds the shard that has most partitions, and of those the one
// that has committed most: alone in the cluster, that is the topic's.
func tidingsLeader(ctx context.Context, c *Cluster, _ string) (int, error) {
	st, err := tidingsStatus(ctx, c.nodes[0])
	if err != nil {
		return -1, err
	}
	var busiest cluster.ShardStatus
	for _, sh := range st.Shards {
		if sh.ID == 0 {
			continue // metadata
		}
		if sh.Partitions > busiest.Partitions || sh.Partitions == busiest.Partitions && sh.Commit > busiest.Commit {
			busiest = sh
		}
	}
	return c.numbered(busiest.Leader), nil
}

// numbered is the number of a node by its name, -1 when there is none.
func (c *Cluster) numbered(name string) int {
	for i := range c.nodes {
		if nodeName(i) == name {
			return i
		}
	}
	return -1
}

// natsClusterSpec starts three nats-servers; jetStream is JetStream's own
// setting. Streams have three replicas.
func natsClusterSpec(jetStream string) func(path string) ClusterSpec {
	return func(path string) ClusterSpec {
		return ClusterSpec{
			Name: "nats-cluster", Nodes: clusterNodes, Ports: 3,
			Node: func(i int, _ string, ports [][]int) Spec {
				routes := make([]string, len(ports))
				for k, p := range ports {
					routes[k] = fmt.Sprintf("%q", "nats://"+loopback(p[portNodes]))
				}
				return Spec{
					Name: "nats-server", Path: path,
					Args: func(dir string, _ []int) []string { return []string{"-c", dir + "/config"} },
					File: func(dir string, own []int) string {
						return fmt.Sprintf("server_name: %s\nlisten: %q\nhttp: %q\nlogtime: false\n", nodeName(i), loopback(own[portClients]), loopback(own[portHTTP])) +
							fmt.Sprintf("cluster { name: bench, listen: %q, routes: [%s] }\n", loopback(own[portNodes]), strings.Join(routes, ", ")) +
							fmt.Sprintf("jetstream { store_dir: %q, %s }\n", dir+"/store", jetStream)
					},
				}
			},
			Target: func(s *Server) Target { return &JetStream{Addr: s.Addr(portClients), Replicas: clusterNodes} },
			Whole:  natsWhole, Leader: natsLeader,
			Answers: time.Second, // while a stream has no leader, nothing is answered
		}
	}
}

// natsWhole asks every server for its health: it then has all that its streams'
// leaders have, and JetStream has a leader.
func natsWhole(ctx context.Context, c *Cluster) error {
	return c.await(ctx, func(ctx context.Context) error {
		for _, s := range c.nodes {
			if _, err := get(ctx, "http://"+s.Addr(portHTTP)+"/healthz"); err != nil {
				return err
			}
			body, err := get(ctx, "http://"+s.Addr(portHTTP)+"/jsz")
			if err != nil {
				return err
			}
			var v struct {
				Meta struct {
					Leader string `json:"leader"`
					Size   int    `json:"cluster_size"`
				} `json:"meta_cluster"`
			}
			if err := json.Unmarshal(body, &v); err != nil {
				return err
			}
			if v.Meta.Leader == "" || v.Meta.Size != len(c.nodes) {
				return fmt.Errorf("%s knows %d servers and the leader %q", s.Addr(portClients), v.Meta.Size, v.Meta.Leader)
			}
		}
		return nil
	})
}

func natsLeader(ctx context.Context, c *Cluster, topic string) (int, error) {
	conn, err := dialNATS(ctx, c.nodes[0].Addr(portClients))
	if err != nil {
		return -1, err
	}
	defer conn.conn.Close()
	if err := conn.conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return -1, err
	}
	body, err := conn.ask("$JS.API.STREAM.INFO."+topic, struct{}{})
	if err != nil {
		return -1, err
	}
	var v struct {
		Cluster struct {
			Leader string `json:"leader"`
		} `json:"cluster"`
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return -1, err
	}
	return c.numbered(v.Cluster.Leader), nil
}
