// Package plant holds the planted bugs that the simulator and the kill tests
// must catch. Without the build tag faults, On is constant false and the
// compiler removes every planted branch.
package plant
