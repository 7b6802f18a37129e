"""Which manifest of an index is this machine's: pure but for the machine's name."""

from collections.abc import Mapping, Sequence
from typing import Any

from cri import kernel
from cri.errors import InvalidArgument, NotFound
from cri.images.reference import is_digest


def choose(manifests: Sequence[Mapping[str, Any]], what: str) -> Mapping[str, Any]:
    """The best match for linux on this architecture; raises NotFound naming what there is instead.

    Raises InvalidArgument for a list that is not one of manifests.
    """
    if not isinstance(manifests, list) or not all(_is_entry(manifest) for manifest in manifests):
        raise InvalidArgument(f"image {what}: its index does not list manifests with digest and platform")
    architecture, variant = kernel.machine()
    best: tuple[int, Mapping[str, Any]] | None = None
    manifest: Mapping[str, Any]
    for manifest in manifests:
        platform = manifest.get("platform") or {}
        if not platform and len(manifests) == 1:
            return manifest
        if platform.get("os") != "linux" or platform.get("architecture") != architecture:
            continue
        score = 2 if platform.get("variant", "") == variant else 1
        if best is None or score > best[0]:
            best = (score, manifest)
    if best is None:
        offered = sorted({_name(manifest.get("platform") or {}) for manifest in manifests})
        raise NotFound(f"image {what}: no manifest for linux/{architecture}; there are {', '.join(offered) or 'none'}")
    return best[1]


def _is_entry(manifest: Any) -> bool:
    return (
        isinstance(manifest, dict)
        and is_digest(str(manifest.get("digest")))
        and isinstance(manifest.get("platform") or {}, dict)
    )


def _name(platform: Mapping[str, Any]) -> str:
    return "/".join(
        part for part in (platform.get("os"), platform.get("architecture"), platform.get("variant")) if part
    )
