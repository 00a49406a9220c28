package top

import (
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// tone is how a piece of text looks. The sixteen colours are those of the
// user's terminal, light or dark.
type tone uint8

const (
	plain tone = iota
	dim
	strong
	good
	warn
	bad
	accent
	inflow
	outflow
	marked // the selected row, the current tab
)

var sgr = map[tone]string{
	dim: "2", strong: "1", good: "32", warn: "33", bad: "1;31", accent: "1;36", inflow: "32", outflow: "34", marked: "7",
}

// noColour is what is left of sgr without colours.
var noColour = map[tone]string{dim: "2", strong: "1", bad: "1", accent: "1", marked: "7"}

// theme paints text, or not.
type theme struct{ codes map[tone]string }

func newTheme(plain bool) theme {
	if plain {
		return theme{noColour}
	}
	return theme{sgr}
}

func (t theme) paint(as tone, text string) string {
	code := t.codes[as]
	if code == "" || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[m"
}

// cut shortens text to a width; … says so.
func cut(text string, width int) string {
	if width <= 0 {
		return ""
	}
	return ansi.Truncate(text, width, "…")
}

// pad fills text up to a width, or cuts it; right puts it to the right.
func pad(text string, width int, right bool) string {
	w := ansi.StringWidth(text)
	if w > width {
		return cut(text, width)
	}
	fill := strings.Repeat(" ", width-w)
	if right {
		return fill + text
	}
	return text + fill
}

// fit joins as many pieces as there is room for, in order.
func fit(width int, between string, pieces ...string) string {
	out, used := "", 0
	for _, p := range pieces {
		w := ansi.StringWidth(p)
		if p == "" {
			continue
		}
		if used > 0 {
			w += ansi.StringWidth(between)
		}
		if used+w > width {
			if used == 0 {
				return cut(p, width)
			}
			break
		}
		if used > 0 {
			out += between
		}
		out += p
		used += w
	}
	return out
}

// apart puts one text to the left and one to the right; the right one goes
// where there is no room for both.
func apart(width int, left, right string) string {
	l, r := ansi.StringWidth(left), ansi.StringWidth(right)
	if r == 0 || l+r+1 > width {
		return cut(left, width)
	}
	return left + strings.Repeat(" ", width-l-r) + right
}
