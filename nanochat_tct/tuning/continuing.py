"""What a sweep may share with earlier trials: those of its own ledger when it is continued, and those of `--from`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from nanochat_tct.config import flag_of, to_dict
from nanochat_tct.errors import UserError
from nanochat_tct.model.config import BEFORE as MODELS_BEFORE
from nanochat_tct.storage.object_storage import absolute, shown
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.tuning.budget import Terms
from nanochat_tct.tuning.config import GROWING, SweepConfig, flag_words
from nanochat_tct.tuning.ledger import Account, Ledger, read_ledger
from nanochat_tct.tuning.records import VARIABLE, Evidence, Trial, show_value
from nanochat_tct.tuning.results import trial_rows, values_of
from nanochat_tct.tuning.space import Size

# Settings that change a trial's loss and cannot be varied.
MATTERS = (
    *("context_size", "windowing", "stride", "mask_illegal", "train_samples", "precision"),
    *("max_grad_norm_ratio", "max_bad_iters", "shifted_keys"),
)


def has_other_windows(account: Account) -> bool:
    """Whether a trial is of a version that measured trials on the first windows of the validation split."""
    return account.purpose != "probe" and "validation_windows" not in account.settings


# ----------------------------------------------------------------------------- the same sweep, continued


def with_additions(config: SweepConfig, before: dict[str, Any]) -> SweepConfig:
    """The settings, with what was added to the sweep before (`Terms.sweep`)."""

    def both(name: str, given: list[Any]) -> list[Any]:
        return list(dict.fromkeys([*before.get(name, []), *given]))

    return dataclasses.replace(
        config,
        add_sizes=both("add_sizes", config.add_sizes),
        add_rates=both("add_rates", config.add_rates),
        from_=both("from", [absolute(source) for source in config.from_]),
        repeats=max(config.repeats, before.get("repeats", 1)),
    )


def changes(was: Terms, now: Terms) -> dict[str, tuple[Any, Any]]:
    """The settings in which a sweep differs from what it was begun with: before and now."""
    # A ledger of an earlier version lacks settings that came later: its trials had their defaults. Models differed.
    before = to_dict(SweepConfig()) | MODELS_BEFORE | was.sweep
    return {name: (before[name], after) for name, after in now.sweep.items() if before[name] != after}


def is_more(was: Terms, now: Terms) -> bool:
    """Whether a sweep is continued: with a higher budget, or with more to try."""
    return was.budget < now.budget or any(name in GROWING for name in changes(was, now))


def refuse_older_trials(ledger: Ledger, output: str) -> None:
    """Raises: UserError when new trials could not be compared with those that a sweep has."""
    if any(has_other_windows(account) for account in ledger.accounts.values()):
        raise UserError(
            f"the sweep in {output} was begun with an earlier version, which measured trials on other validation "
            "windows: new ones could not be compared with them; take another --output, or --fresh to begin again"
        )


def refuse_other_sweep(was: Terms, now: Terms, output: str) -> None:
    """Raises: UserError that names the first thing in which the sweep in `output` is another one."""
    if difference := difference_of(was, now):
        raise UserError(
            f"the sweep in {output} {difference}; take that again, another --output, or --fresh to begin again"
        )


def difference_of(was: Terms, now: Terms) -> str | None:
    """The first thing in which a sweep that was begun is another one than is asked for now."""
    if was.unit != now.unit:
        return f"was begun with {was.flag}"
    if was.hourly_usd != now.hourly_usd:
        before, after = (shown_setting("gpu_hourly_usd", terms.hourly_usd) for terms in (was, now))
        return f"was begun with {before}, not with {after}"
    if now.budget < was.budget:
        return f"has {was.flag}, which can be raised, not lowered to {now.budget:g}"
    for name, (before, after) in changes(was, now).items():
        if name in GROWING:
            continue
        if name in ("data_dir", "tokenizer"):
            what = "data" if name == "data_dir" else name
            return f"was begun with another {what} (fingerprint {before[:12]}, now {after[:12]})"
        more = "; --add-sizes adds to them" if name == "sizes" else ""
        return f"was begun with {shown_setting(name, before)}, not with {shown_setting(name, after)}{more}"
    return None


def shown_setting(name: str, value: Any) -> str:
    """A setting and its value, as the command line has them."""
    flag = flag_of(name)
    if isinstance(value, bool):
        return flag if value else f"--no-{flag[2:]}"
    if value is None or value in ([], {}):
        return f"no {flag}"
    return f"{flag} {' '.join(flag_words(value, show_value))}"


# ----------------------------------------------------------------------------- other sweeps


def read_evidence(
    config: SweepConfig, terms: Terms, base: TrainConfig, sizes: Mapping[str, Size], ledger: Ledger | None
) -> list[Evidence]:
    """The trials and final runs that fit this sweep, of each sweep that `--from` names and `ledger` does not have.

    Args:
        base: what this sweep's trials share.
    Raises: UserError that names what is different, when no trial of a sweep fits.
    """
    before = [evidence.source for evidence in ledger.noted(Evidence)] if ledger else []
    own = values_of({"config": to_dict(base), "derives_weight_decay": config.train.weight_decay is None})
    allowed = {name: [value] for name, value in own.items()} | config.varied()
    by_shape = {tuple(size.settings().values()): name for name, size in sizes.items()}
    found = []
    for given in config.from_:
        source = absolute(given)
        if source == absolute(config.output):
            raise UserError(f"--from {given} is the --output: its own trials count anyway")
        if source in before:
            continue
        other = read_ledger(given, "--from ")
        for name, what in {"data_dir": "on other data", "tokenizer": "with another tokenizer"}.items():
            there, here = other.terms.sweep[name], terms.sweep[name]
            if there != here:
                raise UserError(
                    f"--from {given}: it was run {what} (fingerprint {there[:12]}, not {here[:12]})"
                )
        fitting, reasons = [], []
        for trial in trial_rows(other):
            if trial.purpose == "probe" or trial.status not in ("finished", "stopped"):
                continue
            size = by_shape.get((trial.n_layer, trial.n_head, trial.n_embd))
            if size is None:
                reasons.append(f"size {trial.size} is none of --sizes {' '.join(sizes)}")
            elif reason := why_not_comparable(other.accounts[trial.trial], trial, base, allowed):
                reasons.append(reason)
            else:
                fitting.append(dataclasses.replace(trial, purpose="sweep", size=size, source=shown(given)))
        if not fitting:
            why = reasons[0] if reasons else "none of its trials has ended"
            raise UserError(f"--from {given}: no trial there can be compared with this sweep's: {why}")
        print(f"{len(fitting)} trials of {shown(source)} count as evidence")
        found.append(Evidence(source, fitting))
    return found


def why_not_comparable(
    account: Account, trial: Trial, base: TrainConfig, allowed: Mapping[str, Any]
) -> str | None:
    """Why a trial cannot be compared with those of this sweep; None when it can.

    Args:
        allowed: setting -> the values that this sweep's trials have, of all that a sweep can vary.
    """
    if has_other_windows(account):
        return "it was measured by an earlier version, on other validation windows"
    config = MODELS_BEFORE | account.settings["config"]
    for name in MATTERS:
        if name in config and config[name] != getattr(base, name):
            return f"{name} is {config[name]} there, not {getattr(base, name)}"
    for name in VARIABLE:
        value = getattr(trial, name)
        if value not in allowed[name]:
            is_fixed = isinstance(allowed[name], list) and len(allowed[name]) == 1
            here = f"not {allowed[name][0]}" if is_fixed else "which --vary does not have"
            return f"{name} is {value} there, {here}"
    return None
