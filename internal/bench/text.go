package bench

import (
	"fmt"
	"strconv"
)

func sizeText(bytes int) string {
	if bytes >= 1024 && bytes%1024 == 0 {
		return fmt.Sprintf("%d KiB", bytes/1024)
	}
	return fmt.Sprintf("%d B", bytes)
}

// countText writes whole thousands and millions short, as rows are named: 200k,
// 10m.
func countText(n int) string {
	switch {
	case n >= 1e6 && n%1e6 == 0:
		return strconv.Itoa(n/1e6) + "m"
	case n >= 1e3 && n%1e3 == 0:
		return strconv.Itoa(n/1e3) + "k"
	}
	return strconv.Itoa(n)
}

// rateText keeps three digits: 843k, 1.25M.
func rateText(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'f', digits(v/1e6), 64) + "M"
	case v >= 1e3:
		return strconv.FormatFloat(v/1e3, 'f', digits(v/1e3), 64) + "k"
	}
	return strconv.FormatFloat(v, 'f', digits(v), 64)
}

// digits after the point that make three in all.
func digits(v float64) int {
	switch {
	case v < 9.995:
		return 2
	case v < 99.95:
		return 1
	}
	return 0
}

// microsText writes microseconds in the unit that keeps the number small.
func microsText(us float64) string {
	switch {
	case us >= 1e6:
		return strconv.FormatFloat(us/1e6, 'f', digits(us/1e6), 64) + " s"
	case us >= 1e3:
		return strconv.FormatFloat(us/1e3, 'f', digits(us/1e3), 64) + " ms"
	}
	return strconv.FormatFloat(us, 'f', digits(us), 64) + " us"
}

func mibText(bytes int64) string {
	return strconv.FormatFloat(float64(bytes)/(1<<20), 'f', 0, 64) + " MiB"
}

// numberText keeps three digits of a figure without a unit.
func numberText(v float64) string {
	if v >= 1000 || v <= -1000 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'f', digits(v), 64)
}
