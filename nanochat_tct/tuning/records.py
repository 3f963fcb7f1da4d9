"""The trials of a sweep, as its ledger knows them; and as files for whoever comes later."""

from pathlib import Path
from typing import Any

from nanochat_tct.tuning.ledger import MICRO, Account, Ledger
from nanochat_tct.tuning.trials import (
    ENTRIES,
    TRIALS,
    VARIABLE,
    Entry,
    Outcome,
    Trial,
    write_outcome,
    write_rows,
)


def write_records(ledger: Ledger, folder: Path) -> Outcome:
    """Write trials.parquet, entries.parquet and outcome.json of a sweep, done or not. Returns the outcome."""
    ledger.refresh()
    write_rows(trial_rows(ledger), folder / TRIALS, Trial)
    write_rows(ledger.entries, folder / ENTRIES, Entry)
    choice = ledger.notes.get("choice", {})
    final = next((account for account in ledger.accounts.values() if account.purpose == "final"), None)
    outcome = Outcome(
        unit=ledger.terms.unit,
        budget=ledger.terms.budget,
        spent=ledger.terms.amount(ledger.spent),
        hourly_usd=ledger.terms.hourly_usd,
        size=choice.get("size"),
        learning_rate=choice.get("learning_rate"),
        varied=choice.get("varied", {}),
        predicted=tuple(choice["predicted"]) if "predicted" in choice else None,
        actual=final.result.get("bits_per_byte") if final else None,
        checkpoint=final.result.get("checkpoint") if final else None,
        decision=choice.get("decision", ""),
    )
    write_outcome(outcome, folder)
    return outcome


def trial_rows(ledger: Ledger) -> list[Trial]:
    """All trials that were begun, in the order in which they were."""
    return [_row(name, account, ledger) for name, account in ledger.accounts.items()]


def _row(name: str, account: Account, ledger: Ledger) -> Trial:
    settings: dict[str, Any] = account.settings
    config = settings["config"]
    tokens = int(account.result.get("tokens") or 0)
    iters = account.result.get("max_iters") or config["max_iters"]  # a final run's length follows its speed
    return Trial(
        trial=name,
        purpose=account.purpose,
        size=settings["size"],
        n_layer=config["n_layer"],
        n_head=config["n_head"],
        n_embd=config["n_embd"],
        parameters=settings["parameters"],
        learning_rate=config["learning_rate"],
        **{name: config[name] for name in VARIABLE if name != "weight_decay"},
        weight_decay=None if settings.get("derives_weight_decay") else config["weight_decay"],
        planned_tokens=iters * settings["iter_tokens"],
        tokens=tokens,
        unique_tokens=settings["unique_tokens"],
        epochs=tokens / settings["unique_tokens"],
        flops=float(account.flops),
        usd=ledger.terms.usd(account.microseconds),
        worker_seconds=account.microseconds / MICRO,
        bits_per_byte=account.result.get("bits_per_byte"),
        status=account.result.get("status", "running"),
        started_at=account.opened_at,
        ended_at=account.closed_at or ledger.clock(),
    )
