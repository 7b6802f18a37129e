"""`cutaway token …`, `cutaway join`, `cutaway leave`."""

from __future__ import annotations

import asyncio
import datetime
import re
from typing import Annotated

import typer

from lab import cluster as clusters
from lab.commands.context import Home, progress
from lab.errors import LabError

token_app = typer.Typer(help="Tokens by which hosts join.", no_args_is_help=True)
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def add_to(app: typer.Typer) -> None:
    """Enter the commands into the `cutaway` command."""
    app.add_typer(token_app, name="token")
    app.command()(join)
    app.command()(leave)


def lifetime(text: str) -> datetime.timedelta:
    """A duration such as 30m, 24h or 7d. Raises LabError."""
    parts = re.fullmatch(r"([1-9]\d{0,4})([mhd])", text)
    if parts is None:
        raise LabError(f"--ttl {text!r} is no duration", "a number and m, h or d: 30m, 24h, 7d")
    return datetime.timedelta(**{_UNITS[parts.group(2)]: int(parts.group(1))})


@token_app.command("create")
def token_create(
    home: Home,
    address: Annotated[
        str, typer.Option("--address", help="Where hosts reach the masters; default: as before, or this host's own.")
    ] = "",
    ttl: Annotated[str, typer.Option("--ttl", help="How long it may be used: 30m, 24h, 7d.")] = "24h",
    description: Annotated[str, typer.Option("--description", help="What it is for.")] = "",
) -> None:
    """Make a token; the last line is the command to give on the new host."""
    from lab.join import tokens

    print(tokens.create(home, address, lifetime(ttl), description, progress()))


@token_app.command("list")
def token_list(home: Home) -> None:
    """The tokens that there are, without their secrets."""
    from lab.join import tokens

    for token in asyncio.run(tokens.listed(clusters.require(home))):
        print(f"{token.token_id}  until {token.expires}  {token.description}".rstrip())


@token_app.command("delete")
def token_delete(token: Annotated[str, typer.Argument(help="Its first six characters.")], home: Home) -> None:
    """Make a token worthless; hosts that joined with it stay."""
    from lab.join import tokens

    asyncio.run(tokens.delete(clusters.require(home), token))
    print("cutaway: the token is gone")


def join(
    server: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="The masters, as `token create` printed it.")],
    home: Home,
    token: Annotated[str, typer.Option("--token", envvar="CUTAWAY_TOKEN", help="From `cutaway token create`.")],
    ca_hash: Annotated[str, typer.Option("--ca-hash", help="sha256:… of the cluster's CA; strongly advised.")] = "",
    name: Annotated[str, typer.Option("--name", help="The node's name; default: this host's.")] = "",
    ip: Annotated[str, typer.Option("--ip", help="The node's address; default: that of the default route.")] = "",
    supervisor: Annotated[str, typer.Option("--supervisor", help="systemd or own; default: what is here.")] = "",
) -> None:
    """Make this host a node of a cluster elsewhere."""
    from lab.join import joining

    if supervisor not in ("", "own", "systemd"):
        raise LabError(f"--supervisor {supervisor!r}: unknown", "systemd or own")
    print(f"cutaway: joining {server}", flush=True)
    host = joining.join(home, server, token, pin=ca_hash, name=name, ip=ip, supervisor=supervisor, say=progress())
    print(f"cutaway: this host is node {host.me.name} of {host.cluster_name}")


def leave(home: Home) -> None:
    """Take this host out of the cluster that it joined: pods, processes, rules, folder."""
    from lab.join import joining

    joining.leave(home, progress())
