package tools

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// timeLayouts are the conversions of strftime that are known, in the way that
// Go writes them.
var timeLayouts = map[byte]string{
	'A': "Monday", 'a': "Mon", 'B': "January", 'b': "Jan", 'd': "02", 'F': "2006-01-02", 'H': "15", 'I': "03",
	'M': "04", 'm': "01", 'p': "PM", 'S': "05", 'T': "15:04:05", 'Y': "2006", 'y': "06", 'Z': "MST", 'z': "-0700",
}

// strftime writes the time after a format of C's. What it does not know stays
// as it is.
func strftime(format string, t time.Time) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		switch layout, known := timeLayouts[format[i]]; {
		case known:
			b.WriteString(t.Format(layout))
		case format[i] == 'j':
			fmt.Fprintf(&b, "%03d", t.YearDay())
		case format[i] == 's':
			b.WriteString(strconv.FormatInt(t.Unix(), 10))
		case format[i] == '%':
			b.WriteByte('%')
		default:
			b.WriteString(format[i-1 : i+1])
		}
	}
	return b.String()
}
