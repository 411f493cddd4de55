package pki

// The registration API: two POST routes of JSON over HTTPS. Readers skip fields
// that they do not know, so that either side may be the newer one.
const (
	registerPath = "/outgate/v1/register"
	renewPath    = "/outgate/v1/renew"

	maxRequest = 64 << 10
	maxReply   = 256 << 10 // certificates and roots, in base64
)

type registerRequest struct {
	Token    string            `json:"token"`
	Agent    string            `json:"agent,omitempty"`
	CSR      []byte            `json:"csr"`
	Hostname string            `json:"hostname,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

type renewRequest struct {
	CSR     []byte        `json:"csr"`
	Expired *expiredProof `json:"expired,omitempty"` // without a client certificate
}

// The reply is a Credential, or errorReply with a status other than 200.
type errorReply struct {
	Error string `json:"error"`
}
