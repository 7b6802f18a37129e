"""Configuration: one msgspec Struct a component, filled from a YAML file, then from flags.

A flag is its field's path with dashes: `log_level` is `--log-level`, `tls.ca_file` is `--tls-ca-file`. A list takes
commas or repetition, a map takes YAML. What is unknown or does not fit ends the process with one line that names the
place, and code 2.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, Union, get_args, get_origin

import msgspec

from machinery.component.tls import TlsFiles

CONFIG_ERROR_EXIT_CODE = 2


class Section(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of configuration structs: fields by keyword, unknown ones refused."""


class ComponentConfig(Section):
    """What every component can be told. A component adds its own fields in a subclass."""

    name: Annotated[str, msgspec.Meta(description="Name of this component in logs and metrics")] = ""
    log_level: Annotated[str, msgspec.Meta(description="debug, info, warning or error")] = "info"
    log_format: Annotated[str, msgspec.Meta(description="json, console, or auto: console on a terminal")] = "auto"
    grpc_address: Annotated[str, msgspec.Meta(description="host:port of the gRPC server; empty: none")] = ""
    http_address: Annotated[str, msgspec.Meta(description="host:port of /metrics, /livez, /readyz; empty: none")] = ""
    apiserver: Annotated[list[str], msgspec.Meta(description="host:port of each apiserver's gRPC port")] = []
    tls: Annotated[TlsFiles, msgspec.Meta(description="Our identity as a client")] = msgspec.field(
        default_factory=TlsFiles
    )
    serving: Annotated[TlsFiles, msgspec.Meta(description="Our certificate as a server")] = msgspec.field(
        default_factory=TlsFiles
    )
    drain_seconds: Annotated[float, msgspec.Meta(description="How long a graceful stop may take", ge=0)] = 5.0


class ConfigError(Exception):
    """The configuration can't be used. The message is one line: where, what is wrong, what would be right."""


ConfigT = TypeVar("ConfigT", bound=Section)


def load(config_class: type[ConfigT], argv: Sequence[str] | None = None, prog: str = "") -> ConfigT:
    """The configuration of this process. Prints `--help` and exits 0; on an error prints one line and exits 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    prog = prog or Path(sys.argv[0]).name
    if "--help" in arguments or "-h" in arguments:
        print(help_text(config_class, prog))
        raise SystemExit(0)
    try:
        return parse(config_class, arguments)
    except ConfigError as err:
        _exit(prog, err)


def _exit(prog: str, err: ConfigError) -> NoReturn:
    print(f"{prog}: {err}", file=sys.stderr)
    raise SystemExit(CONFIG_ERROR_EXIT_CODE) from None


def parse(config_class: type[ConfigT], arguments: Sequence[str]) -> ConfigT:
    """The configuration that a command line means. Raises ConfigError."""
    values: dict[str, Any] = {}
    flags = _flags(config_class)
    given = _split(arguments)
    for name, text in given:
        if name == "config":
            _merge(values, read_file(text))
    seen: set[str] = set()
    for name, text in given:
        if name == "config":
            continue
        if name not in flags:
            raise ConfigError(f"unknown flag --{name}; see --help")
        _set(values, flags[name], text, repeated=name in seen)
        seen.add(name)
    try:
        return msgspec.convert(values, config_class, strict=False)
    except msgspec.ValidationError as err:
        raise ConfigError(f"configuration: {_place(str(err))}") from err


def _place(message: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.a.b`" as "a.b: expected `int`, got `str`"."""
    what, _, where = message.partition(" - at ")
    path = where.strip("`").removeprefix("$").removeprefix(".")
    what = what[:1].lower() + what[1:]
    return f"{path}: {what}" if path else what


def _split(arguments: Sequence[str]) -> list[tuple[str, str]]:
    out = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("--"):
            raise ConfigError(f"unexpected argument {argument!r}; flags begin with --, see --help")
        name, equals, text = argument[2:].partition("=")
        if not equals:
            value = next(rest, None)
            if value is None:
                raise ConfigError(f"flag --{name} needs a value")
            text = value
        out.append((name, text))
    return out


def read_file(path: str) -> dict[str, Any]:
    """A YAML (or JSON) file whose top is a map. Raises ConfigError with the line where the YAML breaks."""
    import yaml

    from machinery.component import yaml_text

    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as err:
        raise ConfigError(f"{path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ConfigError(f"{path}: not UTF-8 at byte {err.start}") from err
    try:
        value = yaml_text.load(text)
    except yaml.MarkedYAMLError as err:
        line = f", line {err.problem_mark.line + 1}" if err.problem_mark else ""
        raise ConfigError(f"{path}{line}: {err.problem}") from err
    except yaml.YAMLError as err:
        raise ConfigError(f"{path}: {err}") from err
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a map of settings, got {type(value).__name__}")
    return value


def _merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


class _Flag(msgspec.Struct):
    path: tuple[str, ...]
    type: Any
    default: Any
    doc: str


def _set(values: dict[str, Any], flag: _Flag, text: str, *, repeated: bool) -> None:
    for part in flag.path[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{part}: expected a map")
    last = flag.path[-1]
    origin = get_origin(flag.type) or flag.type
    if origin in (list, tuple, set, frozenset):
        items = [item for item in text.split(",") if item]
        values[last] = [*values[last], *items] if repeated else items
    elif flag.type is str:
        values[last] = text
    else:
        import yaml

        from machinery.component import yaml_text

        try:
            values[last] = yaml_text.load(text)
        except yaml.YAMLError as err:
            raise ConfigError(f"flag --{'-'.join(flag.path)}: {text!r} is not valid YAML") from err


def _flags(config_class: type[msgspec.Struct], path: tuple[str, ...] = ()) -> dict[str, _Flag]:
    out: dict[str, _Flag] = {}
    hints = msgspec.inspect.type_info(config_class)
    annotated = _hints(config_class)
    assert isinstance(hints, msgspec.inspect.StructType)
    for field in hints.fields:
        kind, doc = annotated[field.name]
        here = (*path, field.name)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            out |= _flags(kind, here)
            continue
        default = field.default if field.default is not msgspec.NODEFAULT else None
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        out["-".join(here).replace("_", "-")] = _Flag(here, kind, default, doc)
    return out


def _hints(config_class: type[msgspec.Struct]) -> dict[str, tuple[Any, str]]:
    from typing import get_type_hints

    out = {}
    for name, hint in get_type_hints(config_class, include_extras=True).items():
        doc = ""
        if get_origin(hint) is Annotated:
            hint, *metas = get_args(hint)
            doc = next((m.description for m in metas if isinstance(m, msgspec.Meta) and m.description), "")
        if get_origin(hint) in (Union, types.UnionType):
            inner = [part for part in get_args(hint) if part is not type(None)]
            hint = inner[0] if len(inner) == 1 else hint
        out[name] = (hint, doc)
    return out


def help_text(config_class: type[msgspec.Struct], prog: str) -> str:
    """Every flag with its type, default and meaning."""
    lines = [
        f"usage: {prog} [--config FILE.yaml] [--FLAG VALUE ...]",
        "",
        "  --config FILE.yaml",
        "        Settings by name, nested ones as maps. Flags come on top.",
    ]
    for name, flag in _flags(config_class).items():
        kind = getattr(flag.type, "__name__", str(flag.type))
        default = f" (default {flag.default!r})" if flag.default not in (None, "", [], {}) else ""
        lines += [f"  --{name} {kind}{default}"]
        if flag.doc:
            lines.append(f"        {flag.doc}")
    return "\n".join(lines)
