"""`cutaway image`: load, pull, build, list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lab.commands.context import Home, here, progress
from lab.errors import LabError

image_app = typer.Typer(help="Images on the nodes.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Enter the commands into the `cutaway` command."""
    app.add_typer(image_app, name="image")


@image_app.command("load")
def image_load(
    archive: Annotated[Path, typer.Argument(help="An OCI or docker archive.")],
    home: Home,
    node: Annotated[list[str] | None, typer.Option(help="Only into this node; may be given several times.")] = None,
) -> None:
    """Load an archive into the nodes."""
    from lab import images

    for name in images.load(here(home)[0], archive, node or ()):
        print(f"cutaway: loaded {name}")


@image_app.command("pull")
def image_pull(
    name: Annotated[str, typer.Argument(help="An image, such as registry.example.org/app:1.")],
    home: Home,
    node: Annotated[list[str] | None, typer.Option(help="Only to this node; may be given several times.")] = None,
) -> None:
    """Have the nodes pull an image from its registry, showing how far it is."""
    from lab import images

    cluster, _ = here(home)
    for one in images.chosen(cluster, node or ()):
        images.pull(cluster, one, name, progress())
        print(f"cutaway: {one.name}: pulled {name}")


@image_app.command("build")
def image_build(
    directory: Annotated[Path, typer.Argument(help="A root file system.")],
    name: Annotated[str, typer.Option(help="The image's name, such as example.org/app:1.")],
    output: Annotated[Path, typer.Option(help="The OCI archive to write.")],
    config: Annotated[
        str, typer.Option(help='Image configuration as JSON: {"Cmd": ["/bin/app"], "Env": ["A=1"]}.')
    ] = "{}",
) -> None:
    """Make an OCI archive out of a root file system."""
    from lab import images

    try:
        parsed = json.loads(config)
    except ValueError as error:
        raise LabError(f"--config is not JSON ({error})") from error
    images.build(directory, name, output, config=parsed)
    print(f"cutaway: wrote {output}")


@image_app.command("list")
def image_list(home: Home) -> None:
    """The images on each node."""
    from lab import images

    cluster, _ = here(home)
    for node in images.chosen(cluster, ()):
        for name in images.names(cluster, node):
            print(f"{node.name}  {name}")
