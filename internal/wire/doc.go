// Package wire encodes and decodes what agents and gateways say to each other
// inside a connection: control frames, stream headers and replies. SPEC.md beside
// this file is the specification; testdata/golden holds one vector a message.
package wire
