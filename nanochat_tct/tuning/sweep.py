"""What a sweep does next, decided from its ledger alone: so it goes on from wherever it was killed.

Probes measure each size; first trials try learning rates; follow-ups try rates beyond an edge, then longer runs of
the sizes that look best; a fit of all of them chooses size and rate; the final run gets what is left.
"""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from nanochat_tct.config import to_dict
from nanochat_tct.data.store import TokenStore
from nanochat_tct.errors import UserError
from nanochat_tct.remote import absolute, join
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.training.loop import open_windows
from nanochat_tct.training.micro_batch import warm_up_rows
from nanochat_tct.training.plan import make_plan as make_train_plan
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.fit import Fit, fit_trials
from nanochat_tct.tuning.ledger import Ledger, OverBudget
from nanochat_tct.tuning.meter import IDLE_SHARE
from nanochat_tct.tuning.plan import Plan, final_iters, make_plan
from nanochat_tct.tuning.prices import (
    EVALUATIONS,
    FINAL_EVALUATIONS,
    Prices,
    prices_in_flops,
    prices_in_quanta,
    prices_in_seconds,
)
from nanochat_tct.tuning.records import trial_rows
from nanochat_tct.tuning.space import Size, first_points, rate_beyond, rounded, rule_rate
from nanochat_tct.tuning.trials import Purpose, Trial

PROBE_ITERS = 10
PROBE_SHARE = 0.5  # of the sweep's money that probes may take at most; they give back what they do not use
RESERVE = 1.25  # times the forecast is reserved where the budget is in time; the rest is given back
NO_FINAL_RUN = "nothing is left for a final run: start anew with --fresh and a larger budget"
TOKENS_PER_PARAMETER = 20  # of a model that is trained to the rule of thumb
WIDENINGS = 2  # of a size's range, at most


@dataclasses.dataclass(frozen=True)
class Spec:
    """A trial that is to be begun."""

    purpose: Purpose
    size: str
    learning_rate: float
    varied: dict[str, Any]  # setting -> value, of what else the sweep varies
    iters: int
    reserve: int  # quanta
    least: int  # quanta that will do, where there are not as many


class Sweep:
    """A sweep's state, and its next step."""

    def __init__(
        self,
        config: SweepConfig,
        folder: Path,
        ledger: Ledger,
        base: TrainConfig,
        store: TokenStore,
        sizes: dict[str, Size],
        cores: int,
        slots: int,
    ) -> None:
        """Args:
        base: what all trials share, resolved for some size.
        cores: of the machine, which trials without GPU share.
        slots: trials at a time.
        """
        self.config, self.folder, self.ledger, self.base = config, folder, ledger, base
        self.store, self.sizes, self.cores, self.slots = store, sizes, cores, slots
        assert base.context_size is not None
        self.iter_tokens = base.global_batch * base.context_size
        training, validation = (open_windows(store, base, split) for split in ("train", "val"))
        self.validation_windows = len(validation)
        # Per-document windows leave tokens out or count them twice, so the whole split is other windows than theirs.
        whole = dataclasses.replace(base, windowing="stream", stride=None)
        self.whole_windows = len(open_windows(store, whole, "val"))
        self.unique_tokens = min(len(training), base.train_samples or len(training)) * base.context_size
        # The final run may take more workers, each of which warms up.
        finals = spread(base, self.slots)
        self.warm_up_rows = {
            is_final: warm_up_rows(each, each.num_workers, base.global_batch)
            for is_final, each in ((False, base), (True, finals))
        }
        self.fit: Fit | None = None

    @property
    def place(self) -> str:
        """Of its output: an absolute path, or a URI that `folder` is this machine's part of."""
        return absolute(self.config.output)

    # ------------------------------------------------------------------------- prices

    def seconds(self, size: str) -> Prices | None:
        """Of a size, as its probe measured them; None before that."""
        for account in self.ledger.accounts.values():
            if (
                account.purpose == "probe"
                and account.settings["size"] == size
                and "seconds" in account.result
            ):
                return prices_in_seconds(account.result["seconds"])
        return None

    def prices(self, size: str, is_final: bool = False) -> Prices:
        """Of a size, in quanta; of a probed one only where the budget is in time."""
        seconds, unit, warm_up = self.seconds(size), self.ledger.terms.unit, self.warm_up_rows[is_final]
        if unit == "flops":
            return prices_in_flops(self.sizes[size], self.base.global_batch, warm_up)
        assert seconds is not None
        workers = self.base.num_workers
        return prices_in_quanta(unit, self.sizes[size], self.base.global_batch, warm_up, workers, seconds)

    def make_plan(self) -> Plan:
        """Divide the sweep's money, once all sizes are probed; a plan is made once and kept.

        Raises: UserError when the budget is too small.
        """
        noted = self.ledger.notes.get("plan")
        if noted is not None:
            return Plan(**noted)
        plan = make_plan(
            self.config,
            self.ledger.terms,
            {name: self.prices(name) for name in self.sizes},
            self.spent_on("probe", "idle"),
            self.base.global_batch,
            self.validation_windows,
            0 if self.base.windowing == "stream" else self.whole_windows,
        )
        self.ledger.note("plan", vars(plan))
        return plan

    def spent_on(self, *purposes: str) -> int:
        """Quanta, of what is settled and what is open."""
        accounts = self.ledger.accounts.values()
        spent = sum(account.charged for account in accounts if account.purpose in purposes)
        if "idle" in purposes:
            spent += self.ledger.spent - sum(account.charged for account in accounts)
        return spent

    # ------------------------------------------------------------------------- what is next

    @property
    def is_probed(self) -> bool:
        return all(self.seconds(size) is not None for size in self.sizes)

    def next_trial(self, running: set[str]) -> str | bool | None:
        """The trial to start now: its name, None to wait for others, False when all is done.

        Args:
            running: names of those that are running in this session.
        Raises: UserError when it cannot go on.
        """
        self.ledger.refresh()
        for name, account in self.ledger.accounts.items():
            if account.is_open and name not in running:
                return name  # of an earlier session
        if "final" in {account.purpose for account in self.ledger.accounts.values()}:
            return None if running else False
        for spec in self.probes():
            return self.begin(spec)
        if running and not self.is_probed:
            return None
        self.refuse_failed_probes()
        plan = self.make_plan()
        if self.config.dry_run:
            return None if running else False
        following = next(self.first_trials(plan), None) or next(iter(self.follow_ups(plan, running)), None)
        if following is not None and not self.is_idle_too_long:
            with suppress(OverBudget):  # kills and slow starts took its money: the final run has the rest
                return self.begin(following)
        if running:
            return None
        try:
            return self.begin(self.final_run(plan))
        except OverBudget as error:
            raise UserError(NO_FINAL_RUN) from error

    def begin(self, spec: Spec) -> str:
        """Reserve a trial's money, and keep all that its processes must know.

        Raises: OverBudget when it is not there.
        """
        number = sum(account.purpose == spec.purpose for account in self.ledger.accounts.values())
        name = f"{spec.purpose}-{number:02d}-{spec.size}"
        self.ledger.open(name, spec.purpose, *self.settings(name, spec), spec.reserve, spec.least)
        return name

    @property
    def is_idle_too_long(self) -> bool:
        """Whether idle workers have cost so much that no more trials are begun, and the final run comes next."""
        return self.ledger.idle > IDLE_SHARE * self.ledger.terms.capacity

    def settings(self, name: str, spec: Spec) -> tuple[int, dict[str, Any]]:
        """Workers and settings of a trial."""
        size = self.sizes[spec.size]
        is_probe, is_final = spec.purpose == "probe", spec.purpose == "final"
        plan = None if is_probe else self.make_plan()
        windows = min(self.base.global_batch, self.validation_windows) if plan is None else plan.windows
        interval = math.ceil(spec.iters / (FINAL_EVALUATIONS - 1 if is_final else EVALUATIONS - 1))
        base = spread(self.base, self.slots) if is_final else self.base
        shape = size.settings()
        # A weight decay that is left open follows from this trial's rate and length, not from those of `base`.
        values = {"weight_decay": self.config.train_settings().get("weight_decay"), **spec.varied}
        config = dataclasses.replace(
            base,
            n_layer=shape["n_layer"],
            n_head=shape["n_head"],
            n_embd=shape["n_embd"],
            run_name=name,
            wandb_run_name=name,
            checkpoint_dir=join(self.place, "runs"),
            log_dir=str(self.folder / "logs"),
            learning_rate=spec.learning_rate,
            min_lr=None,
            warmup_iters=None,
            lr_decay_iters=None,
            max_iters=spec.iters,
            eval_interval=spec.iters if is_probe else max(1, interval),
            eval_iters=1 if plan is None else plan.eval_iters,
            save_interval=max(1, math.ceil(interval / 2)),
            log_interval=max(1, spec.iters // 50),
            keep_checkpoints=1,
            num_samples=0,
            tensorboard=base.tensorboard and not is_probe,
            wandb="off" if is_probe else base.wandb,
            **values,
        )
        config = make_train_plan(config).config
        at_a_time = 1 if is_final else self.slots
        workers = config.num_workers
        prices = Prices(0, 0, 0, 0, 0) if is_probe and self.is_timed else self.prices(spec.size, is_final)
        return workers, {
            "size": spec.size,
            "purpose": spec.purpose,
            "parameters": size.parameters,
            "iters": spec.iters,
            "iter_tokens": self.iter_tokens,
            "unique_tokens": self.unique_tokens,
            "windows": windows,
            "whole_windows": plan.whole_windows if plan is not None and is_final else 0,
            "prices": vars(prices),
            "flops": vars(prices_in_flops(size, self.base.global_batch, self.warm_up_rows[is_final])),
            "hopeless": self.config.hopeless,
            "threads": max(1, self.cores // (workers * at_a_time)),
            "group": self.folder.name,
            "derives_weight_decay": values["weight_decay"] is None,
            "config": to_dict(config),
        }

    @property
    def is_timed(self) -> bool:
        return self.ledger.terms.unit != "flops"

    # ------------------------------------------------------------------------- the phases

    def probes(self) -> Iterator[Spec]:
        """A short run of each size that was not begun."""
        begun = {
            account.settings["size"]
            for account in self.ledger.accounts.values()
            if account.purpose == "probe"
        }
        most = PROBE_SHARE * self.config.sweep_share * self.ledger.terms.capacity / len(self.sizes)
        for name in self.sizes:
            if name not in begun:
                rate = rounded(rule_rate(self.sizes[name]))
                reserve = int(most)
                if not self.is_timed:
                    reserve = math.ceil(self.prices(name).of(PROBE_ITERS, 2 * self.base.global_batch))
                yield Spec("probe", name, rate, {}, PROBE_ITERS, reserve, reserve)

    def refuse_failed_probes(self) -> None:
        """Raises: UserError when a size could not be measured."""
        for name in self.sizes:
            if self.seconds(name) is None:
                why = next(
                    str(account.result.get("why") or account.result.get("status"))
                    for account in self.ledger.accounts.values()
                    if account.purpose == "probe" and account.settings["size"] == name
                )
                raise UserError(
                    f"size {name} could not be measured: {why}; leave it out of --sizes, or raise the budget, "
                    "with --fresh"
                )

    def trials(self, purpose: Purpose = "sweep") -> list[Trial]:
        return [trial for trial in trial_rows(self.ledger) if trial.purpose == purpose]

    def first_trials(self, plan: Plan) -> Iterator[Spec]:
        """Those that were not begun."""
        config, done = self.config, self.trials()
        if config.search == "optuna":
            number = config.trials_of_a_size * len(self.sizes)
            if len(done) < number:
                yield self.spec(*self.ask_optuna(done), plan)
            return
        tried = [(trial.size, trial.learning_rate, self.varied(trial)) for trial in done]
        points = {
            name: first_points(
                size, config.search, config.num_rates, config.rate_span, config.seed, config.varied()
            )
            for name, size in self.sizes.items()
        }
        for index in range(config.trials_of_a_size):  # all sizes get on alike
            for name in self.sizes:
                rate, varied = points[name][index]
                if (name, rate, varied) not in tried:
                    yield self.spec(name, rate, varied, plan)

    def varied(self, trial: Trial) -> dict[str, Any]:
        """A trial's values of what the sweep varies besides size and rate."""
        return {name: getattr(trial, name) for name in self.config.varied()}

    def ask_optuna(self, done: list[Trial]) -> tuple[str, float, dict[str, Any]]:
        """Size, rate and values that Optuna's TPE suggests, given all trials so far."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        distributions = {
            "size": optuna.distributions.CategoricalDistribution(list(self.sizes)),
            "factor": optuna.distributions.FloatDistribution(
                1 / self.config.rate_span, self.config.rate_span, log=True
            ),
            **{
                name: optuna.distributions.CategoricalDistribution(values)
                for name, values in self.config.varied().items()
            },
        }
        sampler = optuna.samplers.TPESampler(seed=self.config.seed + len(done), n_startup_trials=5)
        study = optuna.create_study(sampler=sampler)
        for trial in done:
            factor = trial.learning_rate / rounded(rule_rate(self.sizes[trial.size]))
            if (
                trial.bits_per_byte is not None
                and 1 / self.config.rate_span <= factor <= self.config.rate_span
            ):
                parameters = {"size": trial.size, "factor": factor, **self.varied(trial)}
                study.add_trial(
                    optuna.trial.create_trial(
                        params=parameters, distributions=distributions, value=trial.bits_per_byte
                    )
                )
        asked = study.ask(distributions)
        size = asked.params["size"]
        rate = rounded(rounded(rule_rate(self.sizes[size])) * asked.params["factor"])
        return size, rate, {name: asked.params[name] for name in self.config.varied()}

    def spec(
        self, size: str, rate: float, varied: dict[str, Any], plan: Plan, iters: int | None = None
    ) -> Spec:
        """A trial of the sweep, with its reserve."""
        iters = iters or plan.iters[size]
        price = self.prices(size).of(iters, EVALUATIONS * plan.windows)
        reserve = math.ceil(price * (RESERVE if self.is_timed else 1))
        return Spec("sweep", size, rate, varied, iters, reserve, math.ceil(price))

    def follow_ups(self, plan: Plan, running: set[str]) -> list[Spec]:
        """What the trials so far suggest, the most promising first; what the sweep's share does not buy is left out."""
        left = self.config.sweep_share * self.ledger.terms.capacity - self.spent_on("probe", "sweep", "idle")
        left -= sum(account.left for account in self.ledger.accounts.values() if account.purpose == "sweep")
        if running or not any(trial.status == "finished" for trial in self.trials()):
            return []  # what they find counts
        specs = [spec for spec in self.beyond_edges(plan) if spec.reserve <= left]
        if specs:
            return specs
        return [spec for spec in self.longer_runs(plan, left) if spec.reserve <= left]

    def beyond_edges(self, plan: Plan) -> list[Spec]:
        """A rate beyond the lowest or highest one, for each size where that is the best."""
        found: list[tuple[float, Spec]] = []
        for size in self.sizes:
            same = [
                trial
                for trial in self.trials()
                if trial.size == size and trial.planned_tokens == plan.iters[size] * self.iter_tokens
            ]
            finished = [trial for trial in same if trial.status == "finished"]
            rates = {trial.learning_rate for trial in same}
            if not finished or len(rates) >= self.config.num_rates + WIDENINGS:
                continue
            best = min(finished, key=lambda trial: trial.bits_per_byte or math.inf)
            for is_edge, upwards in (
                (best.learning_rate == max(rates), True),
                (best.learning_rate == min(rates), False),
            ):
                if is_edge:
                    spec = self.spec(size, rate_beyond(rates, upwards), self.varied(best), plan)
                    found.append((best.bits_per_byte or math.inf, spec))
        return [spec for _, spec in sorted(found, key=lambda pair: pair[0])]

    def longer_runs(self, plan: Plan, left: float) -> list[Spec]:
        """Runs of the sizes that look best for the final run, as long as `left` buys, at their best rates."""
        specs = []
        fit = self.make_fit()
        by_promise = sorted(fit.sizes, key=lambda size: -size.probability_best)
        for size in by_promise[:2]:
            price = self.prices(size.size)
            quanta = min(left / (RESERVE if self.is_timed else 1), self.config.follow_up_factor * plan.money)
            iters = price.iters(quanta, EVALUATIONS * plan.windows)
            longest = max(t.planned_tokens for t in self.trials() if t.size == size.size) // self.iter_tokens
            if iters < 1.5 * longest:
                continue
            rate = rounded(fit.learning_rate(size.size, iters * self.iter_tokens).middle)
            spec = self.spec(size.size, rate, self.best_varied(fit), plan, iters)
            specs.append(spec)
            left -= spec.reserve
        return specs

    def best_varied(self, fit: Fit) -> dict[str, Any]:
        """What the fit chooses of what the sweep varies besides size and rate."""
        return {name: fit.best_values[name] for name in self.config.varied()}

    def make_fit(self) -> Fit:
        """Fit all trials, for final runs that what is free would buy.

        Raises: UserError when no trial came to its end.
        """
        if not any(trial.status == "finished" for trial in self.trials()):
            raise UserError(
                "no trial came to its end: lower --rate-span, or see the log.txt of each in "
                f"{self.folder / 'logs'}; then start anew with --fresh"
            )
        plan = self.make_plan()
        tokens = {
            size: max(1, final_iters(self.prices(size, is_final=True), self.ledger.free, plan))
            * self.iter_tokens
            for size in self.sizes
        }
        self.fit = fit_trials(self.trials(), tokens)
        return self.fit

    def final_run(self, plan: Plan) -> Spec:
        """The size and rate that the fit chooses, for all the money that is left."""
        ends = {trial.status for trial in self.trials()}
        if "finished" not in ends and ("cut" in ends or not ends):
            return self.final_run_by_rule(plan)
        fit = self.make_fit()
        size = fit.best_size
        iters = final_iters(self.prices(size, is_final=True), self.ledger.free, plan)
        if iters < 1:
            raise UserError(NO_FINAL_RUN)
        prediction = fit.prediction
        rate = rounded(fit.best_learning_rate)
        choice = {
            "size": size,
            "learning_rate": rate,
            "varied": self.best_varied(fit),
            "predicted": [prediction.low, prediction.middle, prediction.high],
            "decision": fit.decision,
        }
        self.ledger.note("choice", choice)
        least = math.ceil(self.prices(size, is_final=True).of(1, plan.windows, 1))
        return Spec("final", size, rate, self.best_varied(fit), iters, self.ledger.terms.capacity, least)

    def final_run_by_rule(self, plan: Plan) -> Spec:
        """Where there was no money for any trial to come to its end: what is usual without a sweep."""
        prices = {size: self.prices(size, is_final=True) for size in self.sizes}
        iters = {size: final_iters(price, self.ledger.free, plan) for size, price in prices.items()}

        def off(size: str) -> float:
            """How far its tokens would be from what is usual, as a ratio's logarithm."""
            usual = TOKENS_PER_PARAMETER * self.sizes[size].parameters
            return abs(math.log(max(1, iters[size]) * self.iter_tokens / usual))

        size = min(self.sizes, key=off)
        if iters[size] < 1:
            raise UserError(NO_FINAL_RUN)
        rate = rounded(rule_rate(self.sizes[size]))
        varied = {name: values[0] for name, values in self.config.varied().items()}
        decision = (
            f"No trial came to its end with the money there was. The final run takes size {size}, whose tokens are "
            f"nearest to {TOKENS_PER_PARAMETER} for each parameter, and the rule's learning rate, {rate:g}."
        )
        choice = {"size": size, "learning_rate": rate, "varied": varied, "decision": decision}
        self.ledger.note("choice", choice)
        least = math.ceil(prices[size].of(1, plan.windows, 1))
        return Spec("final", size, rate, varied, iters[size], self.ledger.terms.capacity, least)


def spread(base: TrainConfig, slots: int) -> TrainConfig:
    """The same global batch on `slots` times as many workers, where it can be divided: the final run takes all."""
    if slots == 1:
        return base
    if base.gradient_accumulation % slots == 0:
        return dataclasses.replace(
            base,
            gradient_accumulation=base.gradient_accumulation // slots,
            num_workers=base.num_workers * slots,
        )
    if base.batch_size != "auto" and base.batch_size % slots == 0:
        return dataclasses.replace(
            base, batch_size=base.batch_size // slots, num_workers=base.num_workers * slots
        )
    return base
