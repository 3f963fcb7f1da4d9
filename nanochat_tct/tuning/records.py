"""The trials of a sweep, as its ledger knows them; and as files for whoever comes later."""

from pathlib import Path
from typing import Any

from nanochat_tct.tuning.ledger import MICRO, Account, Ledger
from nanochat_tct.tuning.trials import (
    ENTRIES,
    TRIALS,
    Entry,
    Outcome,
    Trial,
    values_of,
    write_outcome,
    write_rows,
)


def write_records(ledger: Ledger, folder: Path) -> Outcome:
    """Write trials.parquet, entries.parquet and outcome.json of a sweep, done or not. Returns the outcome."""
    ledger.refresh()
    write_rows([*trial_rows(ledger), *evidence_rows(ledger)], folder / TRIALS, Trial)
    write_rows(ledger.entries, folder / ENTRIES, Entry)
    outcome = make_outcome(ledger)
    write_outcome(outcome, folder)
    return outcome


def make_outcome(ledger: Ledger) -> Outcome:
    """What the sweep was given, and what came of it so far; of several final runs the latest counts."""
    choice = ledger.notes.get("choice", {})
    final = latest_final(ledger)
    return Outcome(
        unit=ledger.terms.unit,
        budget=ledger.terms.budget,
        spent=ledger.terms.amount(ledger.spent),
        hourly_usd=ledger.terms.hourly_usd,
        size=choice.get("size"),
        learning_rate=choice.get("learning_rate"),
        varied=choice.get("varied", {}),
        predicted=tuple(choice["predicted"]) if choice else None,
        actual=final.result.get("bits_per_byte") if final else None,
        checkpoint=final.result.get("checkpoint") if final else None,
        decision=choice.get("decision", ""),
    )


def latest_final(ledger: Ledger) -> Account | None:
    """The final run; of a sweep that was continued the latest, None before there is one."""
    finals = [account for account in ledger.accounts.values() if account.purpose == "final"]
    return finals[-1] if finals else None


def trial_rows(ledger: Ledger) -> list[Trial]:
    """All trials that were begun, in the order in which they were."""
    return [_row(name, account, ledger) for name, account in ledger.accounts.items()]


def evidence_rows(ledger: Ledger) -> list[Trial]:
    """The trials of other sweeps that a sweep has read."""
    noted = ledger.notes.get("evidence", {})
    return [Trial(**trial) for trials in noted.values() for trial in trials]


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
        **values_of(settings),
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
        seed=config["seed"],
        context_size=config["context_size"],
        checkpoint=account.result.get("checkpoint"),
        whole_split=account.result.get("whole_split"),
    )
