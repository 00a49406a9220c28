package bench

import "fmt"

// SyncedBeforeAnswer is the durability of a tidings node.
const SyncedBeforeAnswer = "synced before the answer"

// TidingsSpec starts a node of our own with default settings. Its ports are NSQ
// TCP and HTTP.
func TidingsSpec(path string) Spec {
	return Spec{
		Name: "tidings", Path: path, Ports: 2,
		Args: func(dir string, ports []int) []string {
			return []string{
				"serve", "--data-path", dir + "/data", "--tcp-address", loopback(ports[0]),
				"--http-address", loopback(ports[1]), "--admin-address=", "--log-level", "warn",
			}
		},
	}
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
