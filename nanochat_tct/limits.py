"""Refuse settings that cannot work: numbers out of range, text that is not Unicode, folders that cannot be written."""

import dataclasses
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from nanochat_tct.config import flag_of
from nanochat_tct.errors import UserError
from nanochat_tct.storage.object_storage import is_remote

LARGEST_INTEGER = 2**63 - 1  # that NumPy, torch and Parquet can hold
LARGEST_FLOAT = 1e9
LONGEST_NAME = 255  # bytes in the name of a file, on the file systems of Linux and macOS


def refuse_absurd(config: Any, largest: float = LARGEST_FLOAT, any_bytes: tuple[str, ...] = ()) -> None:
    """Check the fields of a config dataclass for numbers that are too small or too large, and for invalid text.

    Args:
        largest: the largest float.
        any_bytes: fields whose text may hold any bytes: names of existing files, which need not be UTF-8, and prompts.
    Raises: UserError.
    """
    for field in dataclasses.fields(config):
        value, flag = getattr(config, field.name), flag_of(field.name)
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise UserError(f"{flag} is {_short(value)}: it must be less than 2**63")
        if isinstance(value, float) and not abs(value) <= largest:
            raise UserError(f"{flag} is {value:g}: it must be at most {largest:g}")
        least = field.metadata.get("least")
        if least is not None and isinstance(value, int | float) and value < least:
            raise UserError(f"{flag} is {value}: it must be at least {least}")
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str) and field.name not in any_bytes and not is_text(text):
                raise UserError(f"{flag} {text!a:.100} holds a character that text and paths cannot have")


def is_text(text: str) -> bool:
    """Whether a path can have this text: without NUL and lone surrogates, which stand for bytes that are not UTF-8."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def refuse_folder(path_or_uri: str, flag: str) -> None:
    """Check that a job can write to a folder, which need not exist yet. URIs are not checked.

    Raises: UserError when the folder cannot be created or written to.
    """
    if is_remote(path_or_uri):
        return
    if not path_or_uri:
        raise UserError(f"{flag} is empty: name a folder ('.' is this one)")
    path = Path(os.path.abspath(path_or_uri))
    for folder in (path, *path.parents):
        try:
            mode = folder.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue  # the folder above it decides
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise UserError(f"{flag} {_short(path_or_uri)}: {reason}; choose another folder") from error
        if not stat.S_ISDIR(mode):
            raise UserError(f"{flag} {path_or_uri}: {folder} is a file; name a folder")
        try:  # try it: permissions do not tell that nobody can write to /proc or /sys
            tempfile.TemporaryDirectory(dir=folder).cleanup()
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise UserError(
                f"{flag} {path_or_uri}: nothing can be written in {folder} ({reason}); choose another folder, or "
                "change its permissions"
            ) from error
        return


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"
