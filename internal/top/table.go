package top

import (
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// column is one of a table.
type column struct {
	title string
	sort  string // key that the rows can be sorted by; empty: they can't
	width int    // characters; the first column takes what is left over
	rank  int    // those of a higher rank go first where it is narrow
	text  bool   // to the left
}

// cell is one field of a row.
type cell struct {
	text string
	tone tone
}

// row is one line of a table.
type row struct {
	key   string // stays the same while it is the same thing
	mark  cell   // one character before the row
	cells []cell // as many as there are columns
}

const (
	gap     = 2  // between columns
	nameMin = 12 // of the first column
)

// shown picks the columns that a width has room for, and how wide the first is.
func shown(cols []column, width int) (list []int, name int) {
	for i := range cols {
		list = append(list, i)
	}
	used := func() (n int) {
		for _, i := range list[1:] {
			n += cols[i].width + gap
		}
		return n
	}
	floor := max(nameMin, min(cols[0].width, width/3))
	for len(list) > 1 && width-2-used() < floor {
		worst := 1
		for at := 2; at < len(list); at++ {
			if cols[list[at]].rank >= cols[list[worst]].rank {
				worst = at
			}
		}
		list = slices.Delete(list, worst, worst+1)
	}
	return list, max(width-2-used(), 1)
}

// table draws rows under a header, each line as wide as the terminal.
type table struct {
	theme    theme
	cols     []column
	width    int
	sort     string
	down     bool
	selected string // key; empty: none
	name     int    // width that the first column wants
}

// wants is the width that the first column wants for these rows.
func wants(rows []row, least int) int {
	for _, r := range rows {
		least = max(least, ansi.StringWidth(r.cells[0].text))
	}
	return least
}

// lines are the header and the rows.
func (t *table) lines(rows []row) []string {
	list, name := shown(t.cols, t.width)
	name = min(name, t.name)
	out := []string{t.header(list, name)}
	for _, r := range rows {
		out = append(out, t.line(r, list, name))
	}
	return out
}

func (t *table) cellWidth(i, name int) int {
	if i == 0 {
		return name
	}
	return t.cols[i].width
}

func (t *table) header(list []int, name int) string {
	var b strings.Builder
	b.WriteString("  ")
	for k, i := range list {
		c := t.cols[i]
		if k > 0 {
			b.WriteString(strings.Repeat(" ", gap))
		}
		title, as := c.title, dim
		if c.sort != "" && c.sort == t.sort {
			arrow := "↑"
			if t.down {
				arrow = "↓"
			}
			if as = accent; c.text {
				title += arrow
			} else {
				title = arrow + title
			}
		}
		b.WriteString(t.theme.paint(as, pad(title, t.cellWidth(i, name), !c.text)))
	}
	return b.String()
}

func (t *table) line(r row, list []int, name int) string {
	chosen := t.selected != "" && r.key == t.selected
	paint := t.theme.paint
	if chosen { // one look for all of the line
		paint = func(_ tone, text string) string { return text }
	}
	mark := r.mark.text
	if mark == "" {
		mark = " "
	}
	var b strings.Builder
	b.WriteString(paint(r.mark.tone, mark) + " ")
	for k, i := range list {
		if k > 0 {
			b.WriteString(strings.Repeat(" ", gap))
		}
		b.WriteString(paint(r.cells[i].tone, pad(r.cells[i].text, t.cellWidth(i, name), !t.cols[i].text)))
	}
	if !chosen {
		return b.String()
	}
	line := b.String()
	return t.theme.paint(marked, line+strings.Repeat(" ", max(t.width-ansi.StringWidth(line), 0)))
}

// sortable lists the keys of the columns that are shown, in order.
func sortable(cols []column, width int) (keys []string) {
	list, _ := shown(cols, width)
	for _, i := range list {
		if cols[i].sort != "" {
			keys = append(keys, cols[i].sort)
		}
	}
	return keys
}
