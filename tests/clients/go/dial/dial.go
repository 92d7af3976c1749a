// Package dial makes the configuration of the clients: with ETCDCTL_CACERT, ETCDCTL_CERT and
// ETCDCTL_KEY in the environment they speak TLS.
package dial

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "FAIL:", err)
	os.Exit(1)
}

// Config for these endpoints.
func Config(endpoints []string, timeout time.Duration) clientv3.Config {
	c := clientv3.Config{Endpoints: endpoints, DialTimeout: timeout}
	ca := os.Getenv("ETCDCTL_CACERT")
	if ca == "" {
		return c
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		fatal(err)
	}
	c.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	c.TLS.RootCAs.AppendCertsFromPEM(pem)
	if cert := os.Getenv("ETCDCTL_CERT"); cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, os.Getenv("ETCDCTL_KEY"))
		if err != nil {
			fatal(err)
		}
		c.TLS.Certificates = []tls.Certificate{pair}
	}
	c.Endpoints = nil
	for _, e := range endpoints {
		c.Endpoints = append(c.Endpoints, "https://"+e)
	}
	return c
}
