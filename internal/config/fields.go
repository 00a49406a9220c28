package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Field is one setting: its names, its default and where its value is kept.
type Field struct {
	Name    string // flag name, with dashes
	Default string // as it would be written on the command line
	Help    string // one line
	Type    string // string, bool, int, size, duration, list
	Min     string // smallest value, as text; empty: no bound
	Max     string // largest value, as text; empty: no bound
	Hidden  bool   // nsqd's /config does not know it
	truth   bool   // a text that may also be a truth value
	number  bool   // a text that a file may have as a bare number
	key     string // in the configuration file, where it does not follow from Name
	value   reflect.Value
}

// Key is the name in the configuration file.
func (f Field) Key() string {
	if f.key != "" {
		return f.key
	}
	return strings.ReplaceAll(f.Name, "-", "_")
}

// Env is the name in the environment.
func (f Field) Env() string {
	return "TIDINGS_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
}

// Set parses text into the setting. The error says what is wanted, not where
// the text stood.
func (f Field) Set(text string) error {
	if err := setValue(f.value, text); err != nil {
		return err
	}
	return f.check()
}

// check holds the value against the field's bounds.
func (f Field) check() error {
	for _, bound := range []struct {
		text, words string
		broken      func(value, bound int64) bool
	}{
		{f.Min, "at least", func(v, b int64) bool { return v < b }},
		{f.Max, "at most", func(v, b int64) bool { return v > b }},
	} {
		if bound.text == "" {
			continue
		}
		limit := reflect.New(f.value.Type()).Elem()
		if err := setValue(limit, bound.text); err != nil {
			panic("config: bad bound of " + f.Name + ": " + err.Error())
		}
		if bound.broken(f.value.Int(), limit.Int()) {
			return fmt.Errorf("want %s %s", bound.words, bound.text)
		}
	}
	return nil
}

// String is the present value as it would be written on the command line.
func (f Field) String() string {
	if !f.value.IsValid() {
		return ""
	}
	return formatValue(f.value)
}

// Raw is the present value in its own type: a time.Duration is one, in ns, a
// size is a Bytes, a list a []string that is not nil.
func (f Field) Raw() any {
	if l, ok := reflect.TypeAssert[List](f.value); ok {
		return append([]string{}, l...)
	}
	return f.value.Interface()
}

// Value is the present value; a duration is its text, a list a []string that is
// not nil.
func (f Field) Value() any {
	switch x := f.value.Interface().(type) {
	case time.Duration:
		return x.String()
	case List:
		return append([]string{}, x...)
	}
	return f.value.Interface()
}

// IsBool says that the flag needs no value.
func (f Field) IsBool() bool { return f.truth || f.value.Kind() == reflect.Bool }

// Fields lists the settings of c in the order of the struct; setting a Field
// changes c.
func (c *Config) Fields() []Field { return c.fields(false) }

// NSQDFields is Fields with the defaults under the name nsqd.
func (c *Config) NSQDFields() []Field { return c.fields(true) }

func (c *Config) fields(nsqd bool) []Field { return fieldsOf(reflect.ValueOf(c).Elem(), nsqd) }

// fieldsOf lists the settings of a struct, which are the fields with a name.
func fieldsOf(v reflect.Value, nsqd bool) []Field {
	t := v.Type()
	out := make([]Field, 0, t.NumField())
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		if tag.Get("name") == "" {
			continue
		}
		def := tag.Get("default")
		if d, ok := tag.Lookup("nsqd"); nsqd && ok {
			def = d
		}
		out = append(out, Field{
			Name: tag.Get("name"), Default: def, Help: tag.Get("help"),
			Type: typeName(v.Field(i)), Min: tag.Get("min"), Max: tag.Get("max"), key: tag.Get("key"),
			truth: tag.Get("bool") != "", number: tag.Get("number") != "", Hidden: tag.Get("hidden") != "", value: v.Field(i),
		})
	}
	return out
}

// Default is the configuration that `serve` starts from.
func Default() Config { return defaults(false) }

// DefaultNSQD is the configuration under the name nsqd: NSQ's ports on all
// interfaces, data below the working directory.
func DefaultNSQD() Config { return defaults(true) }

func defaults(nsqd bool) Config {
	var c Config
	setDefaults(append(c.fields(nsqd), c.Unused.Fields()...))
	return c
}

func setDefaults(fields []Field) {
	for _, f := range fields {
		if f.Default == "" {
			continue
		}
		if err := f.Set(f.Default); err != nil {
			panic("config: bad default of " + f.Name + ": " + err.Error())
		}
	}
}

func typeName(v reflect.Value) string {
	switch v.Interface().(type) {
	case Bytes:
		return "size"
	case time.Duration:
		return "duration"
	case List:
		return "list"
	}
	return v.Kind().String()
}

func setValue(v reflect.Value, text string) error {
	switch v.Interface().(type) {
	case Bytes:
		n, err := ParseBytes(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(n))
		return nil
	case time.Duration:
		d, err := ParseDuration(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(d))
		return nil
	case List:
		v.Set(reflect.ValueOf(ParseList(text)))
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("want true or false")
		}
		v.SetBool(b)
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("want a whole number")
		}
		v.SetInt(int64(n))
	case reflect.Float64:
		x, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("want a number")
		}
		v.SetFloat(x)
	default:
		return fmt.Errorf("setting of type %s can't be parsed", v.Type())
	}
	return nil
}

func formatValue(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case Bytes:
		return x.String()
	case time.Duration:
		return formatDuration(x)
	case List:
		return x.String()
	}
	return fmt.Sprint(v.Interface())
}

// formatDuration leaves out the units that are zero: 1h, not 1h0m0s.
func formatDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

var byteUnits = []struct {
	suffix string
	factor int64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
}

// ParseBytes reads a size such as "1048576", "64KiB" or "1.5GiB".
func ParseBytes(text string) (Bytes, error) {
	num, factor := strings.TrimSpace(text), int64(1)
	for _, u := range byteUnits {
		if len(num) > len(u.suffix) && strings.EqualFold(num[len(num)-len(u.suffix):], u.suffix) {
			num, factor = strings.TrimSpace(num[:len(num)-len(u.suffix)]), u.factor
			break
		}
	}
	if n, err := strconv.ParseInt(num, 10, 64); err == nil {
		if n < 0 || n > (1<<62)/factor {
			return 0, fmt.Errorf("size out of range")
		}
		return Bytes(n * factor), nil
	}
	x, err := strconv.ParseFloat(num, 64)
	if err != nil || !(x >= 0) || x*float64(factor) > 1<<62 {
		return 0, fmt.Errorf("want a size such as 64MiB")
	}
	return Bytes(x * float64(factor)), nil
}

// String writes the size in the largest binary unit that loses nothing.
func (b Bytes) String() string {
	for i := 3; i >= 0; i-- {
		if u := byteUnits[i]; b != 0 && int64(b)%u.factor == 0 {
			return strconv.FormatInt(int64(b)/u.factor, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// ParseDuration reads a duration such as "30s"; a plain number is
// milliseconds, as in nsqd's configuration files.
func ParseDuration(text string) (time.Duration, error) {
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		if ms < -(1<<43) || ms > 1<<43 {
			return 0, fmt.Errorf("duration out of range")
		}
		return time.Duration(ms) * time.Millisecond, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("want a duration such as 30s")
	}
	return d, nil
}
