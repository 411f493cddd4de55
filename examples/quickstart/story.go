package main

import (
	"fmt"
	"io"
	"time"
)

// story prints the steps as they happen.
type story struct {
	out   io.Writer
	start time.Time
}

func newStory(out io.Writer) *story { return &story{out: out, start: time.Now()} }

// tell prints a step: when, what, and one line about it.
func (s *story) tell(what, format string, args ...any) {
	fmt.Fprintf(s.out, "%7.3fs  %-11s  %s\n", time.Since(s.start).Seconds(), what, fmt.Sprintf(format, args...))
}
