package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestForwardListensOnLoopbackUnlessToldOtherwise(t *testing.T) {
	for local, want := range map[string]string{
		"15432":           "127.0.0.1:15432",
		":15432":          "127.0.0.1:15432",
		"0":               "127.0.0.1:0",
		"0.0.0.0:15432":   "0.0.0.0:15432",
		"[::1]:15432":     "[::1]:15432",
		"localhost:15432": "localhost:15432",
	} {
		got, err := forwardAddress(local)
		assert.NoError(t, err, local)
		assert.Equal(t, want, got, local)
	}
	for _, local := range []string{"", "x", "127.0.0.1", "65536", "-1", "1:2:3", "127.0.0.1:http"} {
		_, err := forwardAddress(local)
		assert.ErrorContains(t, err, "use a port", local)
	}
}
