"""Refuses settings that can never work: numbers out of range, text that is not Unicode, folders that cannot exist."""

import dataclasses
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from nanochat_tct.errors import UserError
from nanochat_tct.remote import is_remote

LARGEST_INTEGER = 2**63 - 1  # of NumPy, torch and Parquet
LARGEST_FLOAT = 1e9
LONGEST_NAME = 255  # bytes of a file's name, on the file systems of Linux and macOS


def refuse_absurd(config: Any, largest: float = LARGEST_FLOAT, any_bytes: tuple[str, ...] = ()) -> None:
    """Look through the fields of a config dataclass for numbers beyond all bounds and for text that is not Unicode.

    Args:
        largest: of numbers that are not whole.
        any_bytes: fields that only read: names of existing files, which need not be UTF-8, and prompts.
    Raises: UserError.
    """
    for field in dataclasses.fields(config):
        value, flag = getattr(config, field.name), "--" + field.name.replace("_", "-")
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise UserError(f"{flag} is {_short(value)}: it must be less than 2**63")
        if isinstance(value, float) and not abs(value) <= largest:
            raise UserError(f"{flag} is {value:g}: it must be at most {largest:g}")
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str) and field.name not in any_bytes and not is_text(text):
                raise UserError(f"{flag} {text!a:.100} holds a character that text and paths cannot have")


def is_text(text: str) -> bool:
    """Whether it is Unicode that can be a path: no NUL, no lone surrogates (bytes that were not UTF-8)."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def refuse_folder(place: str, flag: str) -> None:
    """Look at a folder that a job is to write to, which need not exist. Nothing stays. URIs are left alone.

    Raises: UserError when it cannot be made or written to.
    """
    if is_remote(place):
        return
    if not place:
        raise UserError(f"{flag} is empty: name a folder ('.' is this one)")
    path = Path(os.path.abspath(place))
    for folder in (path, *path.parents):
        try:
            mode = folder.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue  # something above it decides
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise UserError(f"{flag} {_short(place)}: {reason}; choose another folder") from error
        if not stat.S_ISDIR(mode):
            raise UserError(f"{flag} {place}: {folder} is a file; name a folder")
        try:  # permissions do not tell: /proc and /sys take nothing, whoever asks
            tempfile.TemporaryDirectory(dir=folder).cleanup()
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise UserError(
                f"{flag} {place}: nothing can be written in {folder} ({reason}); choose another folder, or change its "
                "permissions"
            ) from error
        return


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"
