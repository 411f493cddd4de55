package mux_test

import (
	"bytes"
	"io"
	"net"
	"time"
)

// replay is a connection that reads what was recorded, then ends, and forgets
// what is written to it.
type replay struct {
	net.Conn // for the addresses
	io.Reader
}

func newReplay(b []byte) replay {
	end, _ := net.Pipe()
	return replay{end, bytes.NewReader(b)}
}

func (r replay) Read(p []byte) (int, error)       { return r.Reader.Read(p) }
func (replay) Write(p []byte) (int, error)        { return len(p), nil }
func (replay) Close() error                       { return nil }
func (replay) SetReadDeadline(_ time.Time) error  { return nil }
func (replay) SetWriteDeadline(_ time.Time) error { return nil }
