//go:build !race

package websocket_test

const slowdown = 1
