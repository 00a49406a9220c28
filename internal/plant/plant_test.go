package plant_test

import (
	"testing"

	"github.com/tidings-io/tidings/internal/plant"
)

func TestNothingIsPlantedByItself(t *testing.T) {
	if plant.On("") || plant.On("wal-ack-before-sync") {
		t.Error("a bug is planted although nobody asked for it")
	}
}
