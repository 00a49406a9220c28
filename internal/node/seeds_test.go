package node

import (
	"slices"
	"testing"
)

func TestSeedsWithoutAPort(t *testing.T) {
	got := seedList("a, b=host ,c=10.0.0.1:7, [::1]:9,x=")
	want := []string{"a:4190", "b=host:4190", "c=10.0.0.1:7", "[::1]:9", "x="}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
