package pki

import "fmt"

// refusal is why a request was refused. It goes to the log and no further.
type refusal string

const (
	causeUnknown        refusal = "unknown token"
	causeLocked         refusal = "locked after wrong secrets"
	causeWrongSecret    refusal = "wrong secret"
	causeBurned         refusal = "token burned"
	causeExpired        refusal = "token expired"
	causeSpent          refusal = "token spent"
	causeWrongNetwork   refusal = "token is not for this network"
	causeWrongKey       refusal = "token is for another key"
	causeWrongName      refusal = "wrong name; token burned"
	causeUsed           refusal = "token already used with another key; token burned"
	causeNameTaken      refusal = "name belongs to another agent"
	causeAgentRevoked   refusal = "agent was revoked after this token was granted"
	causeRevoked        refusal = "certificate of this token revoked"
	causeRevokedKey     refusal = "key revoked"
	causeBadRequest     refusal = "bad request"
	causeBadCSR         refusal = "bad signing request"
	causeBadCertificate refusal = "certificate not accepted"
	causeKeyReused      refusal = "key was used before"
	causeTooMany        refusal = "renewed too often"
)

func (r refusal) Error() string { return string(r) }

func refuse(cause refusal, err error) error { return fmt.Errorf("%w: %w", cause, err) }
