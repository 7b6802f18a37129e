"""`python -m services.kubelet.hollow --config FILE.yaml --nodes 100`."""

from machinery.component import config
from services.kubelet.hollow.fleet import HollowConfig, main

if __name__ == "__main__":
    main(config.load(HollowConfig, prog="hollow-nodes"))
