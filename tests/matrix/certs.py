"""Certificates for the tests: a CA and what it signed, made by the openssl program."""
import os
import subprocess

from conftest import need

SAN = "IP:127.0.0.1,DNS:localhost"


def run(*args, cwd):
    need("openssl", "certificates for the tests")
    r = subprocess.run(["openssl", *args], cwd=cwd, capture_output=True, text=True)
    assert r.returncode == 0, f"openssl {args}: {r.stderr}"


class Authority:
    """A CA in a directory of its own: <name>.pem and <name>.key there."""

    def __init__(self, directory, name="ca"):
        self.dir = directory
        self.name = name
        os.makedirs(directory, exist_ok=True)
        run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", name + ".key", "-out", name + ".pem", "-days", "30",
            "-subj", "/CN=" + name, "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            cwd=directory)

    @property
    def ca(self):
        return os.path.join(self.dir, self.name + ".pem")

    def path(self, name):
        return os.path.join(self.dir, name)

    def issue(self, name, usage="serverAuth,clientAuth", cn=None, days="30", san=SAN):
        """<name>.pem and <name>.key, written beside and renamed: readers see the old or the new."""
        with open(self.path(name + ".ext"), "w") as f:
            f.write(f"subjectAltName={san}\nextendedKeyUsage={usage}\n")
        run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", name + ".key.new", "-out", name + ".csr", "-subj", "/CN=" + (cn or name),
            cwd=self.dir)
        run("x509", "-req", "-in", name + ".csr", "-CA", self.name + ".pem",
            "-CAkey", self.name + ".key", "-CAcreateserial", "-out", name + ".pem.new",
            "-days", days, "-extfile", name + ".ext", cwd=self.dir)
        os.rename(self.path(name + ".key.new"), self.path(name + ".key"))
        os.rename(self.path(name + ".pem.new"), self.path(name + ".pem"))
        return self.path(name + ".pem"), self.path(name + ".key")

    def revoke(self, *names, out="revoked.crl", form="PEM"):
        """The list of these certificates, written beside and renamed; its path."""
        with open(self.path("index.txt"), "w") as f:
            for name in names:
                r = subprocess.run(["openssl", "x509", "-in", name + ".pem", "-noout", "-serial"],
                                   cwd=self.dir, capture_output=True, text=True)
                serial = r.stdout.strip().removeprefix("serial=")
                f.write(f"R\t391231000000Z\t200101000000Z\t{serial}\tunknown\t/CN={name}\n")
        with open(self.path("revoke.conf"), "w") as f:
            f.write("[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ndefault_md=sha256\n"
                    "default_crl_days=30\n")
        run("ca", "-config", "revoke.conf", "-gencrl", "-cert", self.name + ".pem", "-keyfile",
            self.name + ".key", "-out", "crl.pem", cwd=self.dir)
        run("crl", "-in", "crl.pem", "-outform", form, "-out", out + ".new", cwd=self.dir)
        os.rename(self.path(out + ".new"), self.path(out))
        return self.path(out)
