// Package policy says which targets an agent may be asked to reach.
package policy
