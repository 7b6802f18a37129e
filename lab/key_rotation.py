"""`cutaway secrets rotate-key`: another key seals Secrets, and what the former one sealed is written anew.

Apiservers that run side by side are given it in steps, for none may meet a Secret that it can't open:

    old          all open with the old key
    old, new     all can open what the new one seals, nobody seals with it yet
    new, old     each seals with the new one, and writes again what is sealed with the old one
    new          nothing in the state needs the old one

`identity` is the key of a state that is not sealed yet: so encryption is turned on in the same steps.
"""

from __future__ import annotations

import asyncio
import re
import time
import urllib.error
import urllib.request

from lab import admin, components, health, process_spec, secret_keys, supervisor_client
from lab import up as upping
from lab.cluster import Cluster
from lab.errors import LabError
from lab.pki import Pki
from lab.progress import Say

SEALED_SECONDS_MAX = 600.0
"""How long the apiservers may take to write every Secret again: some thousand a second."""
_SEALED_METRIC = re.compile(r"^apiserver_secrets_sealed_with_first_key (\S+)$", re.MULTILINE)
_ASK_SECONDS, _ASK_PAUSE_SECONDS = 5.0, 0.2


def rotate(cluster: Cluster, say: Say) -> str:
    """Seal every Secret with a new key, or seal them for the first time; the new key's name. The apiservers are started
    anew one after the other. Raises LabError; given again the command goes on from where it was.
    """
    if cluster.swaps.get("apiserver"):
        raise LabError("the apiserver of this cluster is not ours", "`cutaway swap apiserver --undo`")
    if not supervisor_client.is_running(cluster.home):
        raise LabError("the cluster does not run, and its apiservers write the Secrets again", "`cutaway up`")
    file = secret_keys.path(cluster)
    old = secret_keys.lines(file) or [f"{secret_keys.IDENTITY}:"]
    new = secret_keys.fresh()
    if cluster.masters > 1:
        secret_keys.write(file, [*old, new])
        _start_anew(cluster, say, "can open what the new key seals")
    secret_keys.write(file, [new, *old])
    _start_anew(cluster, say, "seals with the new key")
    _wait_sealed(cluster)
    say("every Secret is sealed with it, and what was sealed before is erased")
    retired = secret_keys.retired(cluster)
    ended = [line for line in old if secret_keys.name(line) != secret_keys.IDENTITY]
    secret_keys.write(retired, [*secret_keys.lines(retired), *ended])
    secret_keys.write(file, [new])
    return secret_keys.name(new)


def _start_anew(cluster: Cluster, say: Say, what: str) -> None:
    # A cluster that had no keys: its apiservers have yet to be told of them, one at a time too.
    written = {part.spec.name: part for part in components.control_plane(cluster, Pki(cluster.pki))}
    for name, spec in process_spec.read_specs(cluster.components).items():
        if spec.component != "apiserver":
            continue
        if upping.write(cluster, [written[name]]):
            supervisor_client.call(cluster.home, "apply")
        else:
            supervisor_client.call(cluster.home, "restart", name)
        asyncio.run(upping.wait_healthy(cluster, lambda _: None, [name]))
        say(f"{name} {what}")


def _wait_sealed(cluster: Cluster) -> None:
    deadline = time.monotonic() + SEALED_SECONDS_MAX
    context = health.client_context(admin.identity(cluster))
    ports = [cluster.rest_port(index) for index in range(cluster.masters)]
    while ports:
        url = f"https://127.0.0.1:{ports[0]}/metrics"
        try:
            with urllib.request.urlopen(url, context=context, timeout=_ASK_SECONDS) as answer:
                found = _SEALED_METRIC.search(answer.read().decode())
        except (OSError, urllib.error.URLError):
            found = None
        if found is not None and float(found[1]) == 1:
            ports.pop(0)
        elif time.monotonic() > deadline:
            raise LabError(
                f"not every Secret was sealed with the new key within {SEALED_SECONDS_MAX:g} s; the old one stays",
                "`cutaway logs apiserver`",
            )
        else:
            time.sleep(_ASK_PAUSE_SECONDS)
