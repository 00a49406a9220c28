package node_test

import (
	"net/http"
	"testing"
)

// A deletion is asked of every node by NSQ's tools, one after the other: the first does
// it, the others say OK to it for a while. A second time at the same node it is not
// found, as with nsqd.
func TestDeletedThroughAnotherNode(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.startAll()
	c.until(0, "all is well", healthy)
	for range 5 {
		c.post(0, "/topic/create?topic=orders", "", http.StatusOK)
		c.post(1, "/channel/create?topic=orders&channel=audit", "", http.StatusOK)
		for _, path := range []string{"/channel/delete?topic=orders&channel=audit", "/topic/delete?topic=orders"} {
			for _, at := range []int{2, 0, 1} {
				c.post(at, path, "", http.StatusOK)
			}
			c.post(2, path, "", http.StatusNotFound)
		}
	}
	c.post(1, "/topic/delete?topic=other", "", http.StatusNotFound)
}
