package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// List is a setting of several values, such as addresses. As text they stand
// behind each other with commas between, so that no value can hold one; in a
// file it is an array of texts, or such a text. A flag may be repeated instead.
type List []string

// ParseList reads a list with commas between its values; spaces around a value
// and empty values do not count, nor does a value that was there already.
func ParseList(text string) List {
	var l List
	for v := range strings.SplitSeq(text, ",") {
		if v = strings.TrimSpace(v); v != "" && !slices.Contains(l, v) {
			l = append(l, v)
		}
	}
	return l
}

// String is the list as ParseList reads it.
func (l List) String() string { return strings.Join(l, ",") }

// listText is an array of a file as text; numbers may be bare if they are meant.
func listText(values []any, numbers bool) (string, error) {
	var l List
	for _, v := range values {
		switch x := v.(type) {
		case string:
			if strings.Contains(x, ",") {
				return "", errors.New("want " + wanted["list"])
			}
			l = append(l, x)
		case int64, float64:
			if !numbers {
				return "", errors.New("want " + wanted["list"])
			}
			l = append(l, fmt.Sprint(x))
		default:
			return "", errors.New("want " + wanted["list"])
		}
	}
	return l.String(), nil
}
