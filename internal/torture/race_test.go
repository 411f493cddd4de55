//go:build race

package torture

// detector is by how much the race detector may multiply memory: five to ten times,
// says its documentation.
const detector = 10
