// Package wire encodes and decodes what agents and gateways say to each other
// inside a connection: control frames, stream headers and replies. SPEC.md beside
// this file is the specification; testdata/golden holds messages of this version,
// of a later one, and malformed ones, for this implementation and for others.
package wire
