"""`python -m services.kubelet --config FILE.yaml`."""

from machinery.component import config
from services.kubelet.config import KubeletConfig
from services.kubelet.kubelet import main

if __name__ == "__main__":
    main(config.load(KubeletConfig, prog="kubelet"))
