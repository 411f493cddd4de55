//go:build !race

package process

const race = false
