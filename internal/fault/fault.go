// Package fault is the one error vocabulary of tidings: a Code says what went
// wrong in a way that programs can match, and a table says how that shows at
// each front: as an NSQ error frame and as an HTTP status.
//
// A Code is an error itself, so it can be returned bare, without allocation,
// and be the target of errors.Is:
//
//	return fault.TopicNotFound
//	return fault.New(fault.Overloaded, "publish to topic %s: %d bytes wait", name, n)
//	return fault.Wrap(fault.Storage, err)
//	if errors.Is(err, fault.Overloaded) { … }
//
// Fronts ask CodeOf(err) and never look at texts.
package fault

import (
	"errors"
	"fmt"
)

// Error is a Code with the circumstances.
type Error struct {
	Code  Code
	Text  string // what was done to what, as in "publish to topic orders"; may be empty
	Cause error  // what it came from; may be nil
}

// New makes an Error from a text in the manner of fmt.Sprintf.
func New(c Code, format string, args ...any) *Error {
	return &Error{Code: c, Text: fmt.Sprintf(format, args...)}
}

// Wrap gives err a Code; nil stays nil. An err that carries a Code already
// gets the new one, and still matches the old one through errors.Is.
func Wrap(c Code, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Code: c, Cause: err}
}

// Error joins text and cause; without either it is the code's own text.
func (e *Error) Error() string {
	switch {
	case e.Text != "" && e.Cause != nil:
		return e.Text + ": " + e.Cause.Error()
	case e.Text != "":
		return e.Text
	case e.Cause != nil:
		return e.Cause.Error()
	}
	return e.Code.Error()
}

// Is makes errors.Is(err, fault.SomeCode) match on the code.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// CodeOf returns the outermost Code in err's chain: None for nil, Internal
// for an error that carries none.
func CodeOf(err error) Code {
	if err == nil {
		return None
	}
	for e := err; e != nil; {
		switch x := e.(type) { //nolint:errorlint // this is the loop that unwraps
		case Code:
			return x
		case *Error:
			return x.Code
		}
		if many, ok := e.(interface{ Unwrap() []error }); ok {
			return codeOfFirst(many.Unwrap())
		}
		e = errors.Unwrap(e)
	}
	return Internal
}

// codeOfFirst returns the first code that a joined error carries.
func codeOfFirst(errs []error) Code {
	for _, e := range errs {
		if c := CodeOf(e); c != Internal && c != None {
			return c
		}
	}
	return Internal
}
