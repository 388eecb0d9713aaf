package rnnx

import "fmt"

// Error is what everything in this package returns when it fails. Its code and text are the same in every
// language; errors.As finds it:
//
//	var problem *rnnx.Error
//	if errors.As(err, &problem) && problem.Code == "wrong-shape" { ... }
type Error struct {
	Code     string // stable identifier in kebab-case
	Expected string // what should have been there
	Found    string // what was there instead
	Fix      string // what can be done about it
}

// Error returns the text, in one line.
func (e *Error) Error() string {
	return fmt.Sprintf("expected %s; found %s; fix: %s", e.Expected, e.Found, e.Fix)
}

func newError(code, expected, found, fix string) *Error {
	return &Error{code, expected, found, fix}
}
