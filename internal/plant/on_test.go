//go:build faults

package plant_test

import (
	"slices"
	"testing"

	"github.com/tidings-io/tidings/internal/plant"
)

func TestSet(t *testing.T) {
	defer plant.Set()
	plant.Set("one", "two", "")
	if !plant.On("one") || plant.On("three") || plant.On("") {
		t.Error("On does not follow Set")
	}
	if got := plant.Unasked(); !slices.Equal(got, []string{"two"}) {
		t.Errorf("Unasked = %q, want two", got)
	}
	plant.Set("three")
	if plant.On("one") || !plant.On("three") || plant.Unasked() != nil {
		t.Error("Set does not replace what was planted")
	}
}
