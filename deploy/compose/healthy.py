"""Exits 0 if every HTTPS address on the command line answers 200. Only the standard library: it runs every few seconds.

healthy.py [--as NAME] URL…      NAME: whose client certificate in /var/lib/cutaway/pki to show
"""

import ssl
import sys
import urllib.request

PKI = "/var/lib/cutaway/pki"


def main() -> None:
    """Ask each address."""
    arguments = sys.argv[1:]
    context = ssl.create_default_context(cafile=f"{PKI}/ca.crt")
    if arguments[0] == "--as":
        context.load_cert_chain(f"{PKI}/{arguments[1]}.crt", f"{PKI}/{arguments[1]}.key")
        arguments = arguments[2:]
    for url in arguments:
        try:
            with urllib.request.urlopen(url, context=context, timeout=3) as answer:  # noqa: S310 - the caller's own
                answer.read()
        except OSError as error:
            sys.exit(f"{url}: {error}")


main()
