//go:build !race

package torture

const detector = 1
