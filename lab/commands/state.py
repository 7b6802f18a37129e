"""The state and its past: history, diff, backup, fork, restore, compact, verify, certs, secrets."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lab import cluster as clusters
from lab.commands.context import Home, aside, progress
from lab.errors import LabError
from lab.progress import Waiting

secrets_app = typer.Typer(help="How Secrets are sealed in the state.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Enter the commands into the `cutaway` command."""
    for command in (history, diff, backup, fork, restore, compact, verify, certs):
        app.command()(command)
    app.add_typer(secrets_app, name="secrets")


def history(
    target: Annotated[str, typer.Argument(metavar="KIND/NAME", help="deployment/web, node/node1, any kind served.")],
    home: Home,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where it is.")] = "default",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many versions at most.")] = 20,
    before: Annotated[
        int, typer.Option("--before", min=0, help="Look at what there was at this revision; 0: now.")
    ] = 0,
    status: Annotated[
        bool, typer.Option("--status/--no-status", help="Also versions that changed nothing but the status.")
    ] = True,
) -> None:
    """Each retained version of an object, newest first: revision, when, by whom, and which fields changed."""
    from lab import history as past

    cluster = clusters.require(home)
    found = asyncio.run(past.history(cluster, target, namespace, limit=limit, before=before, status=status))
    print("\n".join(past.rendered(found)))


def diff(
    what: Annotated[
        list[str],
        typer.Argument(metavar="[KIND/NAME] REVISION REVISION", help="One object or all; the second may be 0: now."),
    ],
    home: Home,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where the object is.")] = "default",
) -> None:
    """What differs between two revisions, in an object or in the whole cluster. Exit code 1 if anything does, 2 if that
    can't be told."""
    try:
        changes = _differences(what, home, namespace)
    except LabError as error:
        error.exit_code = 2
        raise
    for change in changes:
        print(change)
    if changes:
        raise typer.Exit(1)


def _differences(what: list[str], home: Path, namespace: str) -> Sequence[object]:
    from lab import history as past

    *target, older, newer = what if len(what) > 1 else ["", *what]
    if len(target) > 1 or not (older.isdigit() and newer.isdigit()):
        raise LabError(f"{' '.join(what)!r} names no two revisions", "cutaway diff [KIND/NAME] 120 140")
    cluster = clusters.require(home)
    if target:
        return asyncio.run(past.diff(cluster, target[0], namespace, int(older), int(newer)))
    with Waiting(aside(), "reading two states of the whole cluster"):
        return asyncio.run(past.diff_all(cluster, int(older), int(newer)))


def backup(
    file: Annotated[
        Path, typer.Argument(help="The file to write; Secrets are sealed in it, if they are in the cluster.")
    ],
    home: Home,
    at: Annotated[int, typer.Option("--at", metavar="REVISION", min=0, help="As it was then; 0: as it is.")] = 0,
) -> None:
    """Copy the cluster's whole state to a file, while it runs."""
    from lab import backup as copies
    from lab import secret_keys

    cluster = clusters.require(home)
    print(f"cutaway: {copies.backup(cluster, file, progress(), at)} is in {file}")
    if keys := secret_keys.names(cluster):
        print(
            f"cutaway: its Secrets are sealed with the key {keys[0]}: to restore it elsewhere, keep "
            f"{secret_keys.path(cluster)} too, in another place than the back-up"
        )


def fork(
    revision: Annotated[int, typer.Argument(min=1, help="As `cutaway history` lists it.")],
    folder: Annotated[Path, typer.Argument(help="The new cluster's folder.")],
    home: Home,
) -> None:
    """Another cluster beside this one, with its state as of a revision. This one goes on."""
    from lab import backup as copies

    forked = copies.fork(clusters.require(home), revision, folder.absolute(), progress())
    print(f"cutaway: {forked.name} is up, as of revision {revision}: `cutaway --help`, with CUTAWAY_HOME={forked.home}")


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `cutaway backup` has written, here or elsewhere.")],
    home: Home,
    ahead: Annotated[
        int | None,
        typer.Option("--ahead", min=1, help="How far the revision goes on beyond any that is known, at least."),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", help="pki/encryption.keys of the cluster that the back-up is of, if it is another one."),
    ] = None,
) -> None:
    """Put a backed up state in place of the cluster's; the present one is kept beside it."""
    from lab import backup as copies

    revision, kept = copies.restore(clusters.require(home), file, progress(), ahead=ahead, keys=keys)
    print(f"cutaway: {revision} is restored; what was there before is {kept}")


def compact(
    home: Home,
    before: Annotated[int, typer.Option("--before", min=0, help="Forget what was before this revision; 0: all.")] = 0,
) -> None:
    """Forget history now, and not when its time is over. Current objects stay."""
    from lab import history as past

    with Waiting(progress(), "forgetting history"):
        begins, removed = asyncio.run(past.compact(clusters.require(home), before))
    print(f"cutaway: history begins at revision {begins}; {removed} log entries removed")


def verify(home: Home) -> None:
    """Read the whole state and check that it is sound. Exit code 1 if it isn't."""
    from lab import backup as copies

    print(f"cutaway: {copies.verify(clusters.require(home), progress())}")


def certs(
    home: Home,
    renew: Annotated[bool, typer.Option("--renew", help="New ones; whoever has one is started anew.")] = False,
    due: Annotated[
        bool, typer.Option("--due", help="With --renew: only what is in the last third of its life.")
    ] = False,
) -> None:
    """The cluster's certificates and when they end."""
    from lab import certs as certificates

    cluster = clusters.require(home)
    if due and not renew:
        raise LabError("--due says which ones to renew", "cutaway certs --renew --due")
    if renew:
        renewed = certificates.renew(cluster, progress(), due_only=due)
        print(f"cutaway: {len(renewed)} certificates renewed")
    else:
        now = datetime.datetime.now(datetime.UTC)
        for found in certificates.listed(cluster, now):
            note = "  due" if found.due else ""
            left = f"{found.days_left(now):>5} days"
            print(f"{left}  {found.ends:%Y-%m-%d}  {found.name:<32}  {found.subject}{note}")
    certificates.ending_authority(cluster)


@secrets_app.command("rotate-key")
def rotate_key(home: Home) -> None:
    """Seal every Secret with a new key, or for the first time; the apiservers are started anew one after the other."""
    from lab import key_rotation

    print(f"cutaway: Secrets are sealed with the key {key_rotation.rotate(clusters.require(home), progress())}")


@secrets_app.command("status")
def secrets_status(home: Home) -> None:
    """Which key seals Secrets. Exit code 1 if none does."""
    from lab import secret_keys

    cluster = clusters.require(home)
    keys = [name for name in secret_keys.names(cluster) if name != secret_keys.IDENTITY]
    if not keys:
        raise LabError("Secrets are not sealed: the state holds them as they are", "cutaway secrets rotate-key")
    print(f"Secrets are sealed with the key {keys[0]} of {secret_keys.path(cluster)}")
    if keys[1:]:
        print(f"and open with {', '.join(keys[1:])}, too, until `cutaway secrets rotate-key`")
