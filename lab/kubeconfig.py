"""Kubeconfig files, with the certificates inside, so that a file can be copied elsewhere."""

from __future__ import annotations

import base64
from pathlib import Path

from lab import process_spec
from lab.pki import Identity
from machinery.component import yaml_text


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
    text = yaml_text.dump(document)
    if not path.exists() or path.read_text() != text:
        process_spec.write_text(path, text, mode=0o600)
