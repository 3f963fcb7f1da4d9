"""The `synthesize` job: writes any number of synthetic workflows, always the same for the same seed.

Workflow i of a seed depends only on (i, seed), so any of them can be made on any machine.
"""

import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import Any

from nanochat_tct.documents import to_json, to_yaml
from nanochat_tct.errors import UserError
from nanochat_tct.limits import refuse_folder
from nanochat_tct.storage.files import PARTIAL, write_atomic, writing_to
from nanochat_tct.synthetic.config import SynthesizeConfig
from nanochat_tct.synthetic.workflow import write_workflow
from nanochat_tct.synthetic.writer import Writer

FOLDER_SIZE = 1000  # files in a sub-folder; fewer files need no sub-folders
MARKER = "SYNTHESIZED"  # a file in the output folder with the settings of what is written there
LEAST_BYTES = 300  # a low estimate of the mean size of a workflow
_SERIAL_COUNT = 3000  # up to this count, more processes take longer to start than they save


def synthesize(index: int, seed: int) -> dict[str, Any]:
    """Return workflow `index` of `seed`, a JSON value that GitHub would accept."""
    return write_workflow(Writer(index, seed))


def synthesize_folder(config: SynthesizeConfig) -> tuple[int, bool]:
    """Write the workflows as files. A second run does nothing, or with other settings replaces its files.

    Returns: the bytes of all files, and whether they were written now.
    Raises:
        UserError: the output folder holds anything else.
    """
    output = Path(config.output)
    settings = {"count": config.count, "format": config.format, "seed": config.seed}
    if not os.path.isdir(output):  # else a finished folder need not be writable
        refuse_folder(config.output, "--output")
    before = _check_output(output)
    if before and before["bytes"] and before == {**settings, "bytes": before["bytes"]}:
        return before["bytes"], False
    refuse_folder(config.output, "--output")
    _refuse_more_than_fits(config, output)
    with writing_to(output):
        if before is not None:
            _remove_files(output)
        output.mkdir(parents=True, exist_ok=True)
        _write_marker(output, {**settings, "bytes": None})
        num_bytes = _write_all(output, config)
        _write_marker(output, {**settings, "bytes": num_bytes})
    return num_bytes, True


def _write_all(output: Path, config: SynthesizeConfig) -> int:
    """Write all workflows, in several processes if there are many; return their bytes."""
    parts = [
        (str(output), config, start, min(start + FOLDER_SIZE, config.count))
        for start in range(0, config.count, FOLDER_SIZE)
    ]
    usual = (os.cpu_count() or 1) if config.count > _SERIAL_COUNT else 1
    processes = min(config.concurrency or usual, len(parts))
    if processes == 1:
        return sum(map(_write_part, parts))
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return sum(pool.imap_unordered(_write_part, parts))


def run(config: SynthesizeConfig) -> None:
    """Write the workflows, and print what was written."""
    start = time.monotonic()
    num_bytes, is_new = synthesize_folder(config)
    seconds = time.monotonic() - start
    what = f"{config.count:,} workflows, {num_bytes:,} bytes of {config.format.upper()}, seed {config.seed}"
    if is_new:
        print(f"{what}: written to {config.output} in {seconds:.1f} s")
    else:
        print(f"{what}: already in {config.output}")


def _file(output: Path, config: SynthesizeConfig, index: int) -> Path:
    folder = output / f"{index // FOLDER_SIZE:03d}" if config.count > FOLDER_SIZE else output
    return folder / f"workflow-{index:06d}.{config.format}"


def _write_part(part: tuple[str, SynthesizeConfig, int, int]) -> int:
    """Write the workflows from start to end (exclusive), which share a folder; return their bytes."""
    output, config, start, end = part
    _file(Path(output), config, start).parent.mkdir(exist_ok=True)
    to_text = to_json if config.format == "json" else to_yaml
    num_bytes = 0
    for index in range(start, end):
        content = to_text(synthesize(index, config.seed)).encode()
        num_bytes += len(content)
        _file(Path(output), config, index).write_bytes(content)
    return num_bytes


def _refuse_more_than_fits(config: SynthesizeConfig, output: Path) -> None:
    """Raises: UserError when the disk is too small for that many workflows."""
    least = config.count * LEAST_BYTES
    there = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if least > free:
        raise UserError(
            f"--count {config.count}: that many workflows take {least:,} bytes at least, and the disk of {output} has "
            f"{free:,} free"
        )


def _check_output(output: Path) -> dict[str, Any] | None:
    """Return the content of an earlier run's marker, or None if the folder is empty or missing.

    Raises: UserError when the folder holds anything but files of that run, and all of them if it has finished.
    """
    if not output.exists():
        return None
    if not output.is_dir():
        raise UserError(f"{output} is a file: give --output a folder")
    if not any(output.iterdir()):
        return None
    refusal = UserError(
        f"{output} holds something else than synthetic workflows: give --output an empty folder"
    )
    try:
        marker: dict[str, Any] = json.loads((output / MARKER).read_text(encoding="utf-8"))
        fields = {key: marker[key] for key in ("count", "format", "seed")}
        config = SynthesizeConfig(output=str(output), **fields)
        has_finished = marker["bytes"] is not None
    except (FileNotFoundError, ValueError, KeyError, TypeError, UserError) as error:
        raise refusal from error
    expected = {_file(output, config, index) for index in range(config.count)}
    paths = [Path(folder) / name for folder, _, names in os.walk(output) for name in names]
    found = {path for path in paths if not path.name.startswith(PARTIAL)} - {output / MARKER}
    if found - expected or (has_finished and found != expected):
        raise refusal
    return marker


def _remove_files(output: Path) -> None:
    """Remove the files of an earlier run except for the marker, so that a killed removal can continue."""
    for entry in output.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()


def _write_marker(output: Path, content: dict[str, Any]) -> None:
    write_atomic(output / MARKER, json.dumps(content) + "\n", sync=False)
