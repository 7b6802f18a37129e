"""Generate the Python beside the `.proto` files: `python -m protos.generate [OUTPUT_DIRECTORY]`.

The output is committed, so that nobody needs grpcio-tools to run a component; `tests/contract/test_protos_fresh.py`
generates into a temporary directory and compares.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def generate(output: Path) -> list[Path]:
    """Run protoc with the Python, gRPC and stub plugins for every contract into `output`; the paths written,
    relative."""
    from grpc_tools import protoc

    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "protos").rglob("*.proto"))
    arguments = ["protoc", f"-I{ROOT}", f"--python_out={output}", f"--grpc_python_out={output}", f"--pyi_out={output}"]
    code = protoc.main([*arguments, *(str(ROOT / source) for source in sources)])
    if code != 0:
        raise SystemExit(f"protoc failed with code {code}")
    written = [Path(source).with_suffix("") for source in sources]
    return [Path(f"{stem}{suffix}") for stem in written for suffix in ("_pb2.py", "_pb2_grpc.py", "_pb2.pyi")]


if __name__ == "__main__":
    for path in generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT):
        print(path)
