"""Trials of other sweeps that count in this one (`--from`): same data, tokenizer, sizes and settings that matter."""

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanochat_tct.errors import UserError
from nanochat_tct.storage.object_storage import RemoteFolder, absolute, is_remote, local_path, shown
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.tuning.ledger import Account, Ledger
from nanochat_tct.tuning.ranges import holds
from nanochat_tct.tuning.remote_sweep import MAX_LEDGER_BYTES
from nanochat_tct.tuning.space import Size
from nanochat_tct.tuning.trials import LEDGER, VARIABLE, Trial, trial_rows

# What changes a trial's numbers and is no part of what is varied.
MATTERS = (
    *("context_size", "windowing", "stride", "mask_illegal", "train_samples", "precision"),
    *("max_grad_norm_ratio", "max_bad_iters"),
)
SHAPE = ("n_layer", "n_head", "n_embd")


def read_evidence(
    given: str,
    sweep: Mapping[str, Any],
    base: TrainConfig,
    fixed: Mapping[str, Any],
    varied: Mapping[str, Any],
    sizes: Mapping[str, Size],
) -> list[Trial]:
    """The trials and final runs of another sweep that fit this one, with this one's names of sizes.

    Args:
        given: its folder or URI.
        sweep: this sweep's `Terms.sweep`.
        base: what this sweep's trials share.
        fixed: values of VARIABLE that this sweep does not vary.
        varied: lists or ranges of those that it does.
    Raises: UserError that names what is different, when no trial fits.
    """
    ledger = open_elsewhere(given)
    for name, what in {"data_dir": "on other data", "tokenizer": "with another tokenizer"}.items():
        there, here = ledger.terms.sweep[name], sweep[name]
        if there != here:
            raise UserError(f"--from {given}: it was run {what} (fingerprint {there[:12]}, not {here[:12]})")
    by_shape = {tuple(size.settings()[name] for name in SHAPE): name for name, size in sizes.items()}
    fitting, reasons = [], []
    for trial in trial_rows(ledger):
        account = ledger.accounts[trial.trial]
        if account.purpose == "probe" or trial.status not in ("finished", "stopped"):
            continue
        shape = tuple(getattr(trial, name) for name in SHAPE)
        if shape not in by_shape:
            reasons.append(f"size {trial.size} is none of --sizes {' '.join(sizes)}")
        elif reason := difference(account, trial, base, fixed, varied):
            reasons.append(reason)
        else:
            trial = dataclasses.replace(trial, purpose="sweep", size=by_shape[shape], source=shown(given))
            fitting.append(trial)
    if not fitting:
        why = reasons[0] if reasons else "none of its trials has ended"
        raise UserError(f"--from {given}: no trial there can be compared with this sweep's: {why}")
    return fitting


def open_elsewhere(given: str, flag: str = "--from ") -> Ledger:
    """The ledger of a sweep in a folder, or in object storage.

    Raises: UserError when there is none.
    """
    place = absolute(given)
    missing = UserError(
        f"{flag}{shown(given)} holds no sweep ({LEDGER} is missing); give the --output of one"
    )
    if not is_remote(place):
        if not (local_path(place) / LEDGER).is_file():
            raise missing
        return Ledger(local_path(place))
    content = RemoteFolder(place).read(LEDGER, MAX_LEDGER_BYTES)
    if content is None:
        raise missing
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, LEDGER).write_bytes(content)
        return Ledger(folder)


def has_other_windows(account: Account) -> bool:
    """Whether a trial is of a version that measured trials on the first windows of the validation split."""
    return account.purpose != "probe" and "validation_windows" not in account.settings


def difference(
    account: Account,
    trial: Trial,
    base: TrainConfig,
    fixed: Mapping[str, Any],
    varied: Mapping[str, Any],
) -> str | None:
    """Why a trial cannot be compared with those of this sweep; None when it can."""
    if has_other_windows(account):
        return "it was measured by an earlier version, on other validation windows"
    config = account.settings["config"]
    for name in MATTERS:
        if name in config and config[name] != getattr(base, name):
            return f"{name} is {config[name]} there, not {getattr(base, name)}"
    for name in VARIABLE:
        value = getattr(trial, name)
        if name in fixed and value != fixed[name]:
            return f"{name} is {value} there, not {fixed[name]}"
        values = varied.get(name)
        if values is not None and not holds(values, value):
            return f"{name} is {value} there, which --vary does not have"
    return None
