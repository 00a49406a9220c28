package top

import (
	"strconv"
	"strings"
	"time"
	"unicode"
)

// count is a number of things, at most seven characters.
func count(n int64) string {
	switch {
	case n < 0:
		return "-" + count(-n)
	case n < 100_000:
		return strconv.FormatInt(n, 10)
	}
	return scaled(float64(n))
}

// scaled is a large number to three or four digits with its unit.
func scaled(v float64) string {
	unit := ""
	for _, u := range []string{"k", "M", "G", "T", "P"} {
		if v < 999.5 {
			break
		}
		v, unit = v/1000, u
	}
	digits := 0
	switch {
	case v < 9.995:
		digits = 2
	case v < 99.95:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + unit
}

// rate is a number per second, or - where it is not measured.
func rate(r *float64) string {
	switch {
	case r == nil:
		return "-"
	case *r <= 0:
		return "0"
	case *r < 0.05:
		return "<0.1"
	case *r < 10:
		return strconv.FormatFloat(*r, 'f', 1, 64)
	case *r < 999.5:
		return strconv.FormatFloat(*r, 'f', 0, 64)
	}
	return scaled(*r)
}

// size is a number of bytes.
func size(n int64) string {
	v, unit := float64(n), " B"
	for _, u := range []string{" KiB", " MiB", " GiB", " TiB", " PiB"} {
		if v < 1023.5 {
			break
		}
		v, unit = v/1024, u
	}
	if unit == " B" || v >= 99.95 {
		return strconv.FormatFloat(v, 'f', 0, 64) + unit
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + unit
}

// age is a duration in ms to two units, at most seven characters; - for nil.
func age(ms *int64) string {
	if ms == nil {
		return "-"
	}
	return span(time.Duration(*ms) * time.Millisecond)
}

func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 9950*time.Millisecond:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + "s"
	}
	s := int64(d.Round(time.Second) / time.Second)
	two := func(big int64, bigUnit string, small int64, smallUnit string) string {
		out := strconv.FormatInt(big, 10) + bigUnit
		if small == 0 {
			return out
		}
		if small < 10 {
			out += "0"
		}
		return out + strconv.FormatInt(small, 10) + smallUnit
	}
	switch {
	case s < 60:
		return strconv.FormatInt(s, 10) + "s"
	case s < 3600:
		return two(s/60, "m", s%60, "s")
	case s < 86400:
		return two(s/3600, "h", s%3600/60, "m")
	case s < 100*86400:
		return two(s/86400, "d", s%86400/3600, "h")
	}
	return strconv.FormatInt(s/86400, 10) + "d"
}

// clean takes out what a terminal could be told with: clients choose their names.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// spark draws the last values, the largest of all as a full block.
func spark(values []float64, width int, most float64) string {
	if width <= 0 {
		return ""
	}
	const bars = "▁▂▃▄▅▆▇█"
	steps := []rune(bars)
	values = values[max(len(values)-width, 0):]
	var b strings.Builder
	b.WriteString(strings.Repeat(" ", width-len(values)))
	for _, v := range values {
		step := 0
		if most > 0 && v > 0 {
			step = min(max(int(v/most*float64(len(steps))), 0), len(steps)-1)
		}
		b.WriteRune(steps[step])
	}
	return b.String()
}

// words is a number with its noun.
func words(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return count(int64(n)) + " " + noun
}
