// dial: the options of a client for "host:port,...". With ETCDCTL_CACERT, ETCDCTL_CERT and
// ETCDCTL_KEY in the environment it speaks TLS.
'use strict';
const fs = require('fs');

module.exports = (endpoints) => {
  const env = process.env;
  const scheme = env.ETCDCTL_CACERT ? 'https://' : 'http://';
  const options = { hosts: endpoints.split(',').map((e) => scheme + e), dialTimeout: 5000 };
  if (env.ETCDCTL_CACERT) {
    options.credentials = {
      rootCertificate: fs.readFileSync(env.ETCDCTL_CACERT),
      certChain: fs.readFileSync(env.ETCDCTL_CERT),
      privateKey: fs.readFileSync(env.ETCDCTL_KEY),
    };
  }
  return options;
};
