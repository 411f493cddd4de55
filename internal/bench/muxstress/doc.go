// Package muxstress lets the stream multiplexers of this project stand in for those of
// libp2p, so that the test suite that go-libp2p has for its own can try them.
package muxstress
