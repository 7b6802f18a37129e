"""Kubeconfig files, with the certificates inside, so that a file can be copied elsewhere."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from lab.pki import Identity


def write(path: Path, *, cluster: str, server: str, user: str, identity: Identity) -> None:
    """Write a kubeconfig with one cluster, one user and one context (0600: it holds a private key)."""

    def inline(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": cluster, "cluster": {"server": server, "certificate-authority-data": inline(identity.ca_file)}}
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": inline(identity.cert_file),
                    "client-key-data": inline(identity.key_file),
                },
            }
        ],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
        "current-context": cluster,
    }
    text = yaml.safe_dump(document, sort_keys=False)
    if not path.exists() or path.read_text() != text:
        path.touch(mode=0o600)
        path.write_text(text)
