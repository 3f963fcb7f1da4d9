"""Config dataclasses, filled from their defaults, then a config file, then the command line.

A field ``max_iters: int = option(1000, "how long to train", unit="iters")`` is the key ``max_iters`` of a
config file and the flag ``--max-iters`` of the command line. A flag wins over the file, the file over the
default.
"""

import argparse
import ast
import dataclasses
import difflib
import math
import re
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from nanochat_tct.errors import UserError

Config = TypeVar("Config")

REQUIRED: Any = dataclasses.MISSING  # option(REQUIRED, ...): the user must give a value


def option(
    default: Any, help: str, unit: str = "", choices: tuple[Any, ...] | None = None, positional: bool = False
) -> Any:
    """A field of a config dataclass.

    Args:
        default: the value when nobody says otherwise, or REQUIRED (then the field must come before those with
            a default, or the dataclass be ``kw_only``).
        help: one line for ``--help``.
        unit: of the number ("iters", "tokens", "USD"); shown in the help.
        choices: the only values allowed.
        positional: given on the command line without a flag (``tokenize FILE``).
    """
    metadata = {"help": help, "unit": unit, "choices": choices, "positional": positional}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def parse_arguments(config_class: type[Config], argv: list[str], command: str, description: str) -> Config:
    """Fills ``config_class`` from the defaults, the file given with ``--config`` and the flags in ``argv``.

    Raises:
        UserError: unknown flag or key, wrong type, a value that is not among the choices, a required value
            that is missing, or whatever ``__post_init__`` refuses.
    """
    fields = {field.name: field for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(config_class)
    parser = _build_parser(fields, hints, command, description)
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        is_flag = unknown[0].startswith("-")
        what = f"unknown flag {unknown[0]}" if is_flag else f"unexpected argument {unknown[0]!r}"
        suggestion = suggest(unknown[0].split("=")[0], flags) if is_flag else ""
        raise UserError(f"{what}{suggestion} (see {parser.prog} --help)")

    values: dict[str, Any] = {}
    if given.config is not None:
        for name, value in read_config_file(given.config).items():
            if name not in fields:
                raise UserError(f"unknown key '{name}' in {given.config}{suggest(name, list(fields))}")
            values[name] = _convert(value, hints[name], fields[name], f"'{name}' in {given.config}")
    for name in fields:
        if hasattr(given, name):
            where = name if fields[name].metadata.get("positional") else _flag(name)
            values[name] = _convert(getattr(given, name), hints[name], fields[name], where)
    for name, field in fields.items():
        if name not in values and _is_required(field):
            what = name.upper() if field.metadata.get("positional") else _flag(name)
            raise UserError(f"{what} is missing: {field.metadata.get('help', '')} (see {parser.prog} --help)")
    return config_class(**values)


def read_config_file(path: str | Path) -> dict[str, Any]:
    """The keys and values of a flat YAML file, or of a ``.py`` file of literal assignments (never executed).

    The numbers of a YAML file come as text: the type of their field says what they are.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"cannot read the config file {path}: {reason}") from error
    return _read_python(text, path) if Path(path).suffix == ".py" else _read_yaml(text, path)


def to_dict(config: Any) -> dict[str, Any]:
    """The fields of a config as plain values, fit for JSON and YAML (tuples become lists)."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def write_yaml(config: Any, path: str | Path) -> None:
    """Writes a config as a file that ``--config`` reads back to an equal one."""
    Path(path).write_text(
        yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8"
    )


# ----------------------------------------------------------------------------- command line


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def _build_parser(
    fields: dict[str, Any], hints: dict[str, Any], command: str, description: str
) -> argparse.ArgumentParser:
    """Flags carry plain strings: ``_convert`` gives them their type, as it does for the values of a file."""
    parser = _Parser(
        prog=f"nanochat-tct {command}",
        description=description,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,  # so that only what was given is set
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=110),
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=None,
        help="YAML, or flat config.py, with the same names in snake_case",
    )
    for name, field in fields.items():
        kind, is_list, _ = _inspect(hints[name])
        choices = field.metadata.get("choices")
        arguments: dict[str, Any] = {"help": _help(field).replace("%", "%%")}
        if kind is bool:
            arguments["action"] = argparse.BooleanOptionalAction
        else:
            if choices:
                arguments["metavar"] = "{" + ",".join(str(choice) for choice in choices) + "}"
            else:
                arguments["metavar"] = (
                    name.upper() if field.metadata.get("positional") else kind.__name__.upper()
                )
        if field.metadata.get("positional"):
            arguments["nargs"] = "+" if is_list and _is_required(field) else "*" if is_list else "?"
            parser.add_argument(name, **arguments)
        else:
            if is_list:
                arguments["nargs"] = "+"
            parser.add_argument(_flag(name), dest=name, **arguments)
    return parser


def _help(field: Any) -> str:
    unit = f" [{field.metadata['unit']}]" if field.metadata.get("unit") else ""
    default = "required" if _is_required(field) else f"default: {_show(_default(field))}"
    return f"{field.metadata.get('help', '')}{unit} ({default})"


def _show(value: Any) -> str:
    if value is None or value == [] or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(str(item) for item in value)
    return str(value) or "empty"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _default(field: Any) -> Any:
    return field.default if field.default is not dataclasses.MISSING else field.default_factory()


def _is_required(field: Any) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


# ----------------------------------------------------------------------------- files


class _Loader(yaml.SafeLoader):
    """Only `null`, `true` and `false` are not text, so that `off` and `1.10` stay as written."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key_node.value for key_node, _ in node.value]
        for name, (key_node, _) in zip(names, node.value, strict=True):
            if names.count(name) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"the key '{name}' comes twice", problem_mark=key_node.start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^(?:null|~|)$"), None)
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), None)


def _read_yaml(text: str, path: str | Path) -> dict[str, Any]:
    try:
        values = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold `name: value` lines, not a {type(values).__name__}")
    return values


def _read_python(text: str, path: str | Path) -> dict[str, Any]:
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError) as error:
        line = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UserError(f"{path}{line}: {error.args[0]}") from error
    values: dict[str, Any] = {}
    for statement in statements:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring
        targets = (
            statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        )
        value = getattr(statement, "value", None)
        try:
            if not isinstance(statement, ast.Assign | ast.AnnAssign) or value is None:
                raise ValueError
            if len(targets) != 1 or not isinstance(targets[0], ast.Name):
                raise ValueError
            values[targets[0].id] = ast.literal_eval(value)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path} line {statement.lineno}: only `name = literal` is read here; nothing is executed"
            ) from error
    return values


# ----------------------------------------------------------------------------- types


def _inspect(hint: Any) -> tuple[type, bool, bool]:
    """``list[str] | None`` -> (str, is a list: True, may be None: True)."""
    optional = False
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        optional = len(members) < len(typing.get_args(hint))
        assert len(members) == 1, f"a config field of type {hint} is not supported"
        hint = members[0]
    is_list = typing.get_origin(hint) in (list, tuple)
    kind = typing.get_args(hint)[0] if is_list else hint
    assert kind in (bool, int, float, str), f"a config field of type {hint} is not supported"
    return kind, is_list, optional


def _convert(value: Any, hint: Any, field: Any, where: str) -> Any:
    """A value of a file or of the command line as the type of its field; a UserError names ``where``."""
    kind, is_list, optional = _inspect(hint)
    if value is None or (optional and isinstance(value, str) and value.lower() == "none"):
        if optional:
            return None
        raise UserError(f"{where} must be {_NAMES[kind]}, and is empty")
    if is_list:
        items = value if isinstance(value, list | tuple) else [value]
        converted = [_convert_one(item, kind, field, where) for item in items]
        return tuple(converted) if "tuple" in str(hint) else converted
    return _convert_one(value, kind, field, where)


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _convert_one(value: Any, kind: type, field: Any, where: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    result: Any = None
    if kind is bool:
        result = value if isinstance(value, bool) else None
    elif isinstance(value, str) or is_number:
        result = str(value) if kind is str else _to_number(value, kind)
    if result is None:
        raise UserError(f"{where} must be {_NAMES[kind]}, not {value!r}")
    choices = field.metadata.get("choices")
    if choices and result not in choices:
        listed = ", ".join(str(choice) for choice in choices)
        raise UserError(f"{where} must be one of {listed}, not {value!r}{suggest(str(value), choices)}")
    return result


def _to_number(value: str | int | float, kind: type) -> int | float | None:
    """None when it is no finite number, or no whole one where ``kind`` is int; `1e9` is a whole number."""
    if kind is int and not isinstance(value, float):
        try:
            return int(value)
        except ValueError:
            pass
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number):
        return None
    if kind is float:
        return number
    return int(number) if number.is_integer() else None


def suggest(name: str, known: Any) -> str:
    names = [str(item) for item in known]
    close = difflib.get_close_matches(name, names, n=1) or difflib.get_close_matches(
        name.replace("-", "_"), names, n=1
    )
    return f"; did you mean {close[0]}?" if close else ""
