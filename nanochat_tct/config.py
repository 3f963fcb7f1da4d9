"""Config dataclasses, filled from their defaults, a config file and the command line.

A field ``max_iters: int = option(1000, "how long to train", unit="iters")`` is the key ``max_iters`` of a
config file and the flag ``--max-iters`` of the command line. Flags override the file, and the file overrides
defaults. A field made by `passed_on` holds another config, whose settings are also keys and flags of this one.
"""

import argparse
import ast
import dataclasses
import difflib
import keyword
import math
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from nanochat_tct import foreign_names
from nanochat_tct.errors import UserError

Config = TypeVar("Config")

MISSING: Any = dataclasses.MISSING
LIKE_ENOUGH = 0.75  # similarity of a mistyped name; that of `block_size` and `vocab_size` is less
REQUIRED: Any = MISSING  # as the default of an option: the user must give a value


def option(
    default: Any,
    help: str,
    unit: str = "",
    choices: tuple[Any, ...] | None = None,
    positional: bool = False,
    low: str = "",
    is_path: bool = False,
    least: int | None = None,
) -> Any:
    """A field of a config dataclass.

    Args:
        default: or REQUIRED (then the field must come before those with a default, or the dataclass be
            ``kw_only``).
        help: one line for ``--help``.
        unit: of the number ("iters", "tokens", "USD"); shown in the help.
        choices: the allowed values.
        positional: the command line has it without a flag (``tokenize FILE``).
        low: the field for the lower end if the value is a range (``2:4`` or a list of two); this field takes the
            upper end. A single number sets the other field to None.
        is_path: a file or folder, in which a leading `~` or `~user` becomes the home folder, as in a shell.
        least: the smallest allowed number, which `limits.refuse_absurd` checks.
    """
    metadata: dict[str, Any] = {"help": help, "unit": unit, "choices": choices, "positional": positional}
    metadata |= {"low": low, "is_path": is_path, "least": least}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def passed_on(default: Any, without: Mapping[str, str], helps: Mapping[str, str]) -> Any:
    """A field of a config dataclass that holds another config; its settings keep their flags, keys and defaults.

    Args:
        default: the other config, frozen; its values are the defaults.
        without: settings that the user cannot give, and the reasons, such as "is swept anyway". Settings that this
            config declares itself are left out too.
        helps: other lines for ``--help`` by setting.
    """
    metadata = {"help": "", "choices": None, "is_path": False, "without": without, "helps": helps}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Setting:
    """A key and flag of a config dataclass, declared by itself or by a config that it passes on."""

    hint: Any  # its type
    default: Any  # MISSING where the user must give a value
    metadata: Mapping[str, Any]  # `option`'s
    holder: str = ""  # the field with the config that declares it; "" for the dataclass itself


def settings_of(config_class: Any) -> dict[str, Setting]:
    """All settings of a config dataclass by name; those of the configs that it passes on come last."""
    hints = typing.get_type_hints(config_class)
    own, passed = {}, {}
    for field in dataclasses.fields(config_class):
        default: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if "without" not in field.metadata:
            name = field.name.rstrip("_") if keyword.iskeyword(field.name.rstrip("_")) else field.name
            own[name] = Setting(hints[field.name], default, field.metadata)
            continue
        without, helps = field.metadata["without"], field.metadata["helps"]
        for name, setting in settings_of(type(default)).items():
            if name not in without:
                metadata = {**setting.metadata, "help": helps.get(name, setting.metadata["help"])}
                if metadata.get("low") in without:
                    metadata["low"] = ""
                passed[name] = Setting(setting.hint, getattr(default, name), metadata, field.name)
    return own | {name: setting for name, setting in passed.items() if name not in own}


def left_out(config_class: Any) -> dict[str, str]:
    """The settings of passed-on configs that the user cannot give, and the reasons."""
    reasons: dict[str, str] = {}
    for field in dataclasses.fields(config_class):
        reasons |= field.metadata.get("without", {})
    return reasons


def parse_arguments(config_class: type[Config], argv: list[str], command: str, description: str) -> Config:
    """Fill a config dataclass from its defaults, the file after ``--config`` and the flags in ``argv``.

    Raises:
        UserError: unknown flag or key, wrong type, a value that is not among the choices, a missing value, or
            whatever ``__post_init__`` refuses.
    """
    settings, reasons = settings_of(config_class), left_out(config_class)
    parser = _build_parser(settings, command, description)
    given, unknown = parser.parse_known_args(_with_texts_joined(argv, settings))
    if unknown:
        flags = [argument.split("=")[0] for argument in unknown if argument.startswith("-")]
        what = f"unexpected argument {unknown[0]!r}"
        if flags and unknown[0].startswith("-"):
            what = _unknown("flag", flags, "", [flag_of(name) for name in settings], reasons)
        raise UserError(f"{what} (see {parser.prog} --help)")

    values: dict[str, Any] = {}
    if given.config is not None:
        given.config = expand_user(given.config, "--config")
        in_file = read_config_file(given.config)
        if not_ours := [name for name in in_file if name not in settings]:
            quoted = [f"'{name}'" for name in not_ours]
            raise UserError(_unknown("key", quoted, f" in {given.config}", list(settings), reasons))
        for name, value in in_file.items():
            values |= _read(name, value, settings[name], f"'{name}' in {given.config}")
    for name, setting in settings.items():
        if hasattr(given, name):
            where = name if setting.metadata.get("positional") else flag_of(name)
            value = getattr(given, name)
            value = value.removeprefix("\0") if isinstance(value, str) else value
            values |= _read(name, value, setting, where)
    for name, setting in settings.items():
        if name not in values and setting.default is MISSING:
            what = name.upper() if setting.metadata.get("positional") else flag_of(name)
            raise UserError(f"{what} is missing: {setting.metadata['help']} (see {parser.prog} --help)")
    for field in dataclasses.fields(config_class):  # type: ignore[arg-type]
        if "without" in field.metadata:
            held = {name for name, setting in settings.items() if setting.holder == field.name}
            changes = {name: values.pop(name) for name in held & set(values)}
            default: Any = field.default
            values[field.name] = dataclasses.replace(default, **changes)
    return config_class(**{_attribute(name): value for name, value in values.items()})


def _attribute(name: str) -> str:
    """The field of a setting; that of `from`, a keyword of Python, is `from_`."""
    return name + "_" if keyword.iskeyword(name) else name


def expand_user(path: str, where: str) -> str:
    """Replace a leading `~` or `~user` of a path by the home folder; URIs do not change.

    Raises:
        UserError: the user does not exist.
    """
    expanded = os.path.expanduser(path)
    if expanded == path and re.match(r"~[\w.-]*(/|$)", path) and not os.path.lexists(path):
        raise UserError(
            f"{where} {path}: there is no user of that name; write ./{path} for a folder of that name"
        )
    return expanded


def _unknown(what: str, names: list[str], where: str, known: list[str], reasons: Mapping[str, str]) -> str:
    """One line about unknown keys or flags, each with a similar known name if there is one."""

    def hint(name: str) -> str:
        reason = reasons.get(_plain(name))
        return f", which {reason}" if reason else _suggest_setting(name, known)

    if len(names) == 1:
        return f"unknown {what} {names[0]}{where}{hint(names[0])}"
    listed = [name + hint(name).replace("; did you mean", ": did you mean") for name in names]
    return f"unknown {what}s{where}: {', '.join(listed)}"


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Read the keys and values of a flat YAML file, or of a ``.py`` file of literal assignments (not executed)."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"cannot read the config file {path}: {reason}") from error
    return _read_python(text, path) if Path(path).suffix == ".py" else _read_yaml(text, path)


def to_dict(config: Any) -> dict[str, Any]:
    """The settings of a config as values for JSON and YAML; tuples become lists."""
    values = {}
    for name, setting in settings_of(type(config)).items():
        value = getattr(getattr(config, setting.holder) if setting.holder else config, _attribute(name))
        values[name] = list(value) if isinstance(value, tuple) else value
    return values


def write_yaml(config: Any, path: str | Path) -> None:
    """Write a config to a file from which ``--config`` reads an equal one."""
    from nanochat_tct.documents import to_yaml

    Path(path).write_text(to_yaml(to_dict(config)), encoding="utf-8")


# ----------------------------------------------------------------------------- command line


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        if "ignored explicit argument" in message:  # nanoGPT's --compile=False
            message += "; give one of the two flags, without a value"
        raise UserError(f"{message} (see {self.prog} --help)")


def _with_texts_joined(argv: list[str], settings: Mapping[str, Setting]) -> list[str]:
    """Rewrite `--prompt TEXT` as `--prompt=\\0TEXT` if the text begins with a dash, as YAML may.

    Otherwise argparse would mistake the text for a flag. A NUL cannot occur in an argument, so it can be removed later.
    """
    texts = {flag_of(name) for name, setting in settings.items() if setting.hint in (str, str | None)}
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1] in texts and re.match(r"-(?!-?[A-Za-z])", argument):
            joined[-1] = f"{joined[-1]}=\0{argument}"
        else:
            joined.append(argument)
    return joined


def _build_parser(settings: Mapping[str, Setting], command: str, description: str) -> argparse.ArgumentParser:
    """The parser returns strings; ``convert`` converts them, like the values of a file."""
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
    groups: dict[str, Any] = {"": parser}
    for name, setting in settings.items():
        if setting.holder not in groups:
            groups[setting.holder] = parser.add_argument_group(f"settings of {setting.holder}, passed on")
        _add_argument(groups[setting.holder], name, setting)
    return parser


def _add_argument(parser: Any, name: str, setting: Setting) -> None:
    """Declare the flag of a setting, or its positional argument."""
    unit = f" [{setting.metadata['unit']}]" if setting.metadata.get("unit") else ""
    default = "required" if setting.default is MISSING else f"default: {_show(setting.default)}"
    arguments: dict[str, Any] = {"help": f"{setting.metadata['help']}{unit} ({default})".replace("%", "%%")}
    if typing.get_origin(setting.hint) is dict:
        parser.add_argument(flag_of(name), dest=name, nargs="+", metavar="NAME=VALUE,VALUE", **arguments)
        return
    kind, is_list, _, words = _inspect(setting.hint)
    choices, is_positional = setting.metadata.get("choices"), setting.metadata.get("positional")
    if kind is bool:
        arguments["action"] = argparse.BooleanOptionalAction
    else:
        metavar = name.upper() if is_positional else "|".join((_METAVARS[kind], *words))
        arguments["metavar"] = "{" + ",".join(map(str, choices)) + "}" if choices else metavar
    if is_positional:  # it may stand in the file: whether it is missing is checked later
        parser.add_argument(name, nargs="*" if is_list else "?", **arguments)
    elif is_list:
        parser.add_argument(flag_of(name), dest=name, nargs="+", **arguments)
    else:
        parser.add_argument(flag_of(name), dest=name, **arguments)


def _show(value: Any) -> str:
    if value is None or value in ([], (), {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(str(item) for item in value)
    return str(value) or "empty"


def flag_of(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


# ----------------------------------------------------------------------------- files


def _read_yaml(text: str, path: str | Path) -> dict[str, Any]:
    # The reader of YAML takes longer to import than all else that `--help` needs.
    from nanochat_tct.documents import DocumentError, read_workflow

    try:
        return read_workflow(text, "yaml")
    except DocumentError as error:
        if error.reason == "empty":
            return {}
        raise UserError(f"cannot read the config file {path}: {error}") from error


def _read_python(text: str, path: str | Path) -> dict[str, Any]:
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError) as error:
        line = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UserError(f"{path}{line}: {error.args[0]}") from error
    values: dict[str, Any] = {}
    for statement in statements:
        value: Any = None
        match statement:
            case ast.Expr(value=ast.Constant()):
                continue  # a docstring
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                value = statement.value
        try:
            values[name] = ast.literal_eval(value)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path} line {statement.lineno}: only `name = literal` is read here; nothing is executed"
            ) from error
    return values


# ----------------------------------------------------------------------------- types


def _inspect(hint: Any) -> tuple[type, bool, bool, tuple[str, ...]]:
    """``list[str] | None`` -> (str, is a list: True, may be None: True, words that stand for a value: none);
    ``int | Literal["auto"]`` -> (int, False, False, ("auto",))."""
    optional = False
    words: tuple[str, ...] = ()
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        optional = len(members) < len(typing.get_args(hint))
        literals = [member for member in members if typing.get_origin(member) is Literal]
        words = tuple(word for literal in literals for word in typing.get_args(literal))
        members = [member for member in members if member not in literals]
        assert len(members) == 1, f"a config field of type {hint} is not supported"
        hint = members[0]
    is_list = typing.get_origin(hint) in (list, tuple)
    kind = typing.get_args(hint)[0] if is_list else hint
    assert kind in (bool, int, float, str), f"a config field of type {hint} is not supported"
    return kind, is_list, optional, words


def _read(name: str, value: Any, setting: Setting, where: str) -> dict[str, Any]:
    """The values of a setting and, if it takes a range, of the setting for the lower end."""
    low = setting.metadata.get("low")
    if not low:
        return {name: convert(value, setting, where)}
    ends = value.split(":") if isinstance(value, str) else value
    if not isinstance(ends, list | tuple):
        ends = [value]
    if len(ends) not in (1, 2):
        raise UserError(f"{where} must be a number, or the two ends of a range, not {value!r}")
    converted = [convert(end, setting, where) for end in ends]
    return {low: converted[0] if len(ends) == 2 else None, name: converted[-1]}


def convert(value: Any, setting: Setting, where: str) -> Any:
    """Convert a value of a file or of the command line to the type of its setting.

    Raises:
        UserError: it has another type, or is not among the choices; the message begins with `where`.
    """
    if typing.get_origin(setting.hint) is dict:
        return _to_lists(value, where)
    kind, is_list, optional, words = _inspect(setting.hint)
    if isinstance(value, str) and value.lower() in words:
        return value.lower()
    if value is None or (optional and isinstance(value, str) and value.lower() == "none"):
        if optional:
            return None
        raise UserError(f"{where} must be {_NAMES[kind]}, and is empty")
    if words and not is_list:
        return _convert_one(value, kind, setting, where, " or ".join((_NAMES[kind], *words)))
    if is_list:
        items = value if isinstance(value, list | tuple) else [value]
        converted = [_convert_one(item, kind, setting, where) for item in items]
        return tuple(converted) if "tuple" in str(setting.hint) else converted
    return _convert_one(value, kind, setting, where)


_METAVARS = {int: "N", float: "X", str: "TEXT"}
_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _convert_one(value: Any, kind: type, setting: Setting, where: str, wanted: str = "") -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    result: Any = None
    if kind is bool:
        result = bool(value) if value in (0, 1) and isinstance(value, int) else None  # nanoGPT: `compile = 1`
    elif isinstance(value, str) or is_number:
        is_exact = not isinstance(value, float)  # `1.10` would become 1.1: text must be quoted
        result = _to_number(value, kind) if kind is not str else str(value) if is_exact else None
    if result is None:
        raise UserError(f"{where} must be {wanted or _NAMES[kind]}, not {value!r}")
    if setting.metadata.get("is_path"):
        result = expand_user(result, where)
    choices = setting.metadata.get("choices")
    if choices and result not in choices:
        listed = ", ".join(str(choice) for choice in choices)
        raise UserError(f"{where} must be one of {listed}, not {value!r}{suggest(str(value), choices)}")
    return result


def _to_number(value: str | int | float, kind: type) -> int | float | None:
    """Convert to a finite number, which must be whole if ``kind`` is int, as `1e9` is; None if it is not one."""
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


def _to_lists(value: Any, where: str) -> dict[str, list[Any]]:
    """Lists by name, from a mapping in a file, or `name=value,value` on the command line; items are not converted."""
    if isinstance(value, dict):
        pairs = [
            (name, items if isinstance(items, list | tuple) else [items]) for name, items in value.items()
        ]
    elif isinstance(value, list) and all(isinstance(item, str) and "=" in item for item in value):
        pairs = [(name, text.split(",")) for name, _, text in (item.partition("=") for item in value)]
    else:
        raise UserError(f"{where} must be name=value,value (in a file, name: [value, value]), not {value!r}")
    lists: dict[str, list[Any]] = {}
    for name, items in pairs:
        lists.setdefault(str(name), []).extend(items)
    return lists


def suggest(name: str, known: Iterable[Any]) -> str:
    """The end of an error message about ``name``, which suggests a similar known name if there is one."""
    names = {_plain(str(item)): str(item) for item in known}
    close = difflib.get_close_matches(_plain(name), names, n=1, cutoff=LIKE_ENOUGH)
    return f"; did you mean {names[close[0]]}?" if close else ""


def _suggest_setting(name: str, known: list[str]) -> str:
    """The same for a setting, whose name may be that of another trainer."""
    plain = _plain(name)
    names = {_plain(item): item for item in known}
    if plain not in names and (own := foreign_names.ours(plain, names)):
        note = f" ({foreign_names.NOTES[own]})" if own in foreign_names.NOTES else ""
        return f"; did you mean {names[own]}{note}?"
    if plain in foreign_names.NOTHING:
        return "; leave it out, there is nothing like it here"
    return "" if foreign_names.is_theirs(plain) and plain not in names else suggest(name, known)


def _plain(name: str) -> str:
    return name.strip("-'").replace("-", "_")
