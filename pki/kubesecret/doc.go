// Package kubesecret keeps an agent's key and certificate in a Kubernetes
// Secret, so that the agent needs no volume and keeps its identity when its pod
// moves.
//
//	storage, err := kubesecret.InCluster("outgate-agent", os.Getenv)
//	identity, err := pki.Enroll(ctx, storage, client, pki.Registration{Token: token})
//
// The agent's service account needs "get" and "update" on this one Secret:
//
//	rules:
//	- apiGroups: [""]
//	  resources: [secrets]
//	  resourceNames: [outgate-agent]
//	  verbs: [get, update]
//
// and, if the Secret is not made together with the role, "create" on Secrets,
// which Kubernetes cannot restrict to a name.
//
// It speaks the REST API with net/http alone. The token and the roots are read
// anew for each request, since the kubelet replaces both while the pod runs.
//
// # Not here
//
// A lock. Two pods that use one Secret learn of each other when the second one
// writes: it is refused, with an error that matches [pki.ErrLocked]. Give a
// Deployment one replica and the strategy Recreate.
//
// Encryption: who may read Secrets in the namespace, or etcd, has the key.
package kubesecret
