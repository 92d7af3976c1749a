"""dial: the Python client of one endpoint. With ETCDCTL_CACERT, ETCDCTL_CERT and ETCDCTL_KEY in the
environment it speaks TLS."""
import os

import etcd3


def client(endpoint):
    host, port = endpoint.split(":")
    env = os.environ
    return etcd3.client(host=host, port=int(port), timeout=10, ca_cert=env.get("ETCDCTL_CACERT"),
                        cert_cert=env.get("ETCDCTL_CERT"), cert_key=env.get("ETCDCTL_KEY"))
