// Package testkube runs a real kube-apiserver, with its etcd, for a test.
//
//	cluster := testkube.Start(t)
//	cluster.Do(t, "POST", "/api/v1/namespaces", map[string]any{"metadata": map[string]any{"name": "agents"}}, nil)
//	token := cluster.Token(t, "agents", "agent", 10*time.Minute)
//
// The programs are those that .ci/kube builds; .ci/test does it and sets
// OUTGATE_KUBE to where they are.
//
// # Not here
//
// Nodes, controllers and a scheduler: objects are stored, authorised and watched,
// and nothing runs.
package testkube
