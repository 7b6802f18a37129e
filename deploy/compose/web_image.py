"""Writes the example's image, out of Debian's nginx, to the archive named on the command line."""

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lab import images
from lab.cluster import Cluster

with tempfile.TemporaryDirectory(prefix="cutaway-web-") as folder:
    archive = images.build_example(Cluster(Path(folder), 0, ()), "nginx:1.14.2")
    shutil.copy(archive, sys.argv[1])
