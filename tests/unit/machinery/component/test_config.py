from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from machinery.component import config as component_config
from machinery.component.config import ComponentConfig, ConfigError, Section


class Limits(Section):
    seconds: float = 1.0


class Config(ComponentConfig):
    workers: Annotated[int, msgspec.Meta(description="How many", ge=1)] = 2
    nodes: list[str] = []
    limits: Limits = msgspec.field(default_factory=Limits)
    on: bool = False


def test_flags_come_on_top_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("workers: 5\ntls: {ca_file: /a}\nlimits: {seconds: 2.5}\n")
    arguments = [
        "--config",
        str(file),
        "--workers=7",
        "--tls-cert-file",
        "/b",
        "--nodes",
        "x,y",
        "--nodes",
        "z",
        "--on",
        "true",
    ]
    config = component_config.parse(Config, arguments)
    assert (config.workers, config.limits.seconds, config.nodes, config.on) == (7, 2.5, ["x", "y", "z"], True)
    assert (config.tls.ca_file, config.tls.cert_file) == ("/a", "/b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--wrokers", "1"], "unknown flag --wrokers; see --help"),
        (["--workers", "many"], "configuration: workers: expected `int`, got `str`"),
        (["--workers", "0"], "configuration: workers: expected `int` >= 1"),
        (["--workers"], "flag --workers needs a value"),
        (["workers"], "unexpected argument 'workers'; flags begin with --, see --help"),
        (["--config", "/nonexistent"], "/nonexistent: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_place(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        component_config.parse(Config, arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limits:\n  secs: 1\n", "configuration: limits: object contains unknown field `secs`"),
        ("a: [1\nb: 2\n", "line 2: expected ',' or ']', but got '<scalar>'"),
        ("- 1\n", "expected a map of settings, got list"),
    ],
)
def test_a_mistake_in_the_file_names_its_line_or_field(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        component_config.parse(Config, ["--config", str(file)])
    assert message.split(", but")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load_exits_with_two_on_a_mistake_and_zero_after_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        component_config.load(Config, ["--wrong", "1"], prog="thing")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "thing: unknown flag --wrong; see --help\n"
    with pytest.raises(SystemExit) as caught:
        component_config.load(Config, ["--help"], prog="thing")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "--limits-seconds float (default 1.0)" in text
    assert "How many" in text
