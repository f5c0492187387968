"""Authorities and certificates for tests of TLS, made with openssl."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """An authority of its own; its certificate is `ca`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._own = self._made(name, "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self.ca = self._own.certificate

    def issue(self, name: str, alternative: str = "IP:127.0.0.1") -> Certificate:
        """A certificate for a server or a client; `alternative` is its SubjectAltName."""
        return self._made(
            name,
            *("-CA", str(self.ca), "-CAkey", str(self._own.key)),
            *("-addext", f"subjectAltName={alternative}", "-addext", "basicConstraints=critical,CA:false"),
        )

    def _made(self, name: str, *options: str) -> Certificate:
        made = Certificate(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(made.key)]
        command = ["openssl", "req", "-x509", *key, "-days", "2", "-subj", f"/CN={name}", *options]
        subprocess.run([*command, "-out", str(made.certificate)], check=True, capture_output=True)
        return made
