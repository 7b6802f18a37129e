"""`python -m services.apiserver --config FILE.yaml`"""

from machinery.component import config, process
from services.apiserver.config import ApiServerConfig


def main() -> None:
    """Run an apiserver."""
    from services.apiserver.service import serve

    process.run(serve, config.load(ApiServerConfig, prog="apiserver"))


if __name__ == "__main__":
    main()
