"""What a sweep does next, decided from its ledger alone: so it goes on from wherever it was killed.

Probes measure each size; first trials try learning rates; follow-ups try rates beyond an edge, then longer runs of
the sizes that look best; a fit of all of them chooses size and rate; the final run gets what is left.

A finished sweep that is continued (`Ledger.extend`) does all of that again with the money that came: what was tried
is not tried again, and all trials, earlier final runs and those of other sweeps (`--from`) count as evidence.
"""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

from nanochat_tct.config import to_dict
from nanochat_tct.data.store import TokenStore
from nanochat_tct.errors import UserError
from nanochat_tct.storage.object_storage import absolute, join
from nanochat_tct.training.config import ResolvedConfig
from nanochat_tct.training.micro_batch import warm_up_rows
from nanochat_tct.training.plan import make_plan as make_train_plan
from nanochat_tct.training.trainer import open_windows
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.fit import Fit, fit_trials
from nanochat_tct.tuning.ledger import MICRO, Ledger, OverBudget
from nanochat_tct.tuning.meter import IDLE_SHARE
from nanochat_tct.tuning.plan import (
    EVALUATIONS,
    FINAL_EVALUATIONS,
    Plan,
    Prices,
    final_iters,
    final_windows,
    least_budget,
    make_plan,
    prices_in_flops,
    prices_in_quanta,
    prices_in_seconds,
    rounded_up,
    too_small,
)
from nanochat_tct.tuning.ranges import Range, holds, middle_value, rounded
from nanochat_tct.tuning.space import Size, first_points, rule_rate, settings_for
from nanochat_tct.tuning.trials import Purpose, Trial, evidence_rows, trial_rows

PROBE_ITERS = 10
PROBE_SHARE = 0.5  # of the sweep's money that probes may take at most; they give back what they do not use
RESERVE = 1.25  # times the forecast is reserved where the budget is in time; the rest is given back
NO_FINAL_RUN = "nothing is left for a final run: raise the budget"
TOKENS_PER_PARAMETER = 20  # of a model that is trained to the rule of thumb
WIDENINGS = 2  # of a size's range, at most
EDGE_STEP = 3.0  # a rate beyond the edge is so many times the last one
LEAST_ODDS = 0.05  # of being the best size, for which more trials of it are worth their money
LEAST_SECONDS = 3.0  # far less than the start of a worker takes
LONG_ENOUGH = 0.5  # of a first trial: another sweep's of that length need not be made again


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
    seed: int


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What is tried: all that makes a first trial but its length."""

    size: str
    learning_rate: float
    varied: dict[str, Any]
    seed: int


class Sweep:
    """A sweep's state, and its next step."""

    def __init__(
        self,
        config: SweepConfig,
        folder: Path,
        ledger: Ledger,
        base: ResolvedConfig,
        store: TokenStore,
        sizes: dict[str, Size],
        cores: int,
        slots: int,
    ) -> None:
        """Args:
        base: what all trials share, with some size.
        cores: of the machine, which trials without GPU share.
        slots: trials at a time.
        """
        self.config, self.folder, self.ledger, self.base = config, folder, ledger, base
        self.store, self.sizes, self.cores, self.slots = store, sizes, cores, slots
        self.varied = config.varied()
        self.iter_tokens = base.global_batch * base.context_size
        training, validation = (open_windows(store, base, split) for split in ("train", "val"))
        self.validation_windows = len(validation)
        self.unique_tokens = min(len(training), base.train_samples or len(training)) * base.context_size
        self.fit: Fit | None = None

    @property
    def place(self) -> str:
        """Of its output: an absolute path, or a URI that `folder` is this machine's part of."""
        return absolute(self.config.output)

    # ------------------------------------------------------------------------- rounds

    @property
    def round(self) -> int:
        """How often the sweep was continued with other terms."""
        return len(self.ledger.rounds) - 1

    @property
    def first_round(self) -> int:
        return self.ledger.first_round

    @property
    def committed(self) -> int:
        """Quanta that were gone when the first of the current rounds began."""
        return self.ledger.rounds[self.first_round].committed

    @property
    def sweep_money(self) -> float:
        """Quanta for the probes and trials of these rounds."""
        return self.config.sweep_share * (self.ledger.terms.capacity - self.committed)

    def spent_on(self, *purposes: str) -> int:
        """Quanta, of what is settled and what is open, in these rounds."""
        accounts = self.ledger.accounts.values()
        spent = sum(
            account.charged
            for account in accounts
            if account.purpose in purposes and account.round >= self.first_round
        )
        if "idle" in purposes:
            spent += self.ledger.idle - self.ledger.rounds[self.first_round].idle
        return spent

    # ------------------------------------------------------------------------- prices

    def batch_base(self, varied: dict[str, Any], is_final: bool = False) -> ResolvedConfig:
        """`base` with a trial's global batch; the final run may have more workers."""
        batch = {name: value for name, value in varied.items() if name == "global_batch"}
        base = dataclasses.replace(self.base, **settings_for(self.base, batch))
        return spread(base, self.slots) if is_final else base

    @property
    def probe_batches(self) -> list[dict[str, Any]]:
        """The values that probes measure: of varied global batches, where time must be measured, both ends."""
        values = self.varied.get("global_batch")
        if values is None:
            return [{}]
        if not self.is_timed:
            return [{"global_batch": middle_value(values)}]
        some = [values.at(0), values.at(1)] if isinstance(values, Range) else values
        return [{"global_batch": batch} for batch in dict.fromkeys((max(some), min(some)))]

    def probed(self, size: str) -> dict[int, Prices]:
        """Seconds of a size by global batch, as its probes measured them."""
        return {
            account.settings["iter_tokens"] // self.sizes[size].shape.context_size: prices_in_seconds(
                account.result["seconds"]
            )
            for account in self.ledger.accounts.values()
            if account.purpose == "probe" and account.settings["size"] == size and "seconds" in account.result
        }

    def seconds(self, size: str, global_batch: int | None = None) -> Prices | None:
        """Of a size, as its probes measured them; None before that. Between two batches an iter's are interpolated."""
        probed = self.probed(size)
        if len(probed) < len(self.probe_batches):
            return None
        most, least = max(probed), min(probed)
        if global_batch is None or most == least:
            return probed[most]
        slope = (probed[most].iter - probed[least].iter) / (most - least)
        an_iter = probed[least].iter + slope * (global_batch - least)
        return dataclasses.replace(
            probed[most], iter=max(an_iter, min(each.iter for each in probed.values()))
        )

    def prices(self, size: str, is_final: bool = False, varied: dict[str, Any] | None = None) -> Prices:
        """Of a size, in quanta; of a probed one only where the budget is in time."""
        base = self.batch_base(varied or {}, is_final)
        warm_up = warm_up_rows(base, base.num_workers, base.global_batch)
        if not self.is_timed:
            return prices_in_flops(self.sizes[size], base.global_batch, warm_up)
        seconds = self.seconds(size, base.global_batch)
        assert seconds is not None
        unit, workers = self.ledger.terms.unit, self.base.num_workers
        return prices_in_quanta(unit, self.sizes[size], base.global_batch, warm_up, workers, seconds)

    @property
    def largest_batch(self) -> int:
        """Windows of an iter of the trials that have the most."""
        values = self.varied.get("global_batch")
        if values is None:
            return self.base.global_batch
        return int(values.at(1) if isinstance(values, Range) else max(values))

    # ------------------------------------------------------------------------- the plan

    def make_plan(self) -> Plan:
        """Divide the sweep's money, once all sizes are probed; a plan is made once in a round and kept.

        Raises: UserError when the budget is too small.
        """
        plans = [self.ledger.notes.get(plan_note(number)) for number in range(self.round + 1)]
        if plans[-1] is not None:
            return Plan(**plans[-1])
        earlier = next((Plan(**plan) for plan in reversed(plans) if plan is not None), None)
        self.refuse_too_small()
        if earlier is None:
            plan = make_plan(
                self.config,
                self.ledger.terms,
                {name: self.prices(name) for name in self.sizes},
                self.spent_on("probe", "idle"),
                self.largest_batch,
                self.validation_windows,
            )
        else:
            plan = self.next_plan(earlier)
        self.note_centres(plan)
        self.ledger.note(plan_note(self.round), vars(plan))
        return plan

    def refuse_too_small(self) -> None:
        """The rule of what a budget must buy; it decides before anything is spent.

        Where the budget is in time, and some size is not measured yet, it knows only that each start takes a while;
        it decides again once all are measured. Where idle workers have cost too much, the final run gets what is left,
        however little that is.

        Raises: UserError that says the least budget that would do.
        """
        if self.is_idle_too_long:
            return
        terms, batch = self.ledger.terms, {"global_batch": self.largest_batch}
        is_known = not self.is_timed or self.is_probed
        at_least = Prices(LEAST_SECONDS * self.base.num_workers * MICRO, 0, 0, 0, 0)
        trials = [self.prices(size, varied=batch) if is_known else at_least for size in self.sizes]
        finals = [self.prices(size, True, batch) if is_known else at_least for size in self.sizes]
        probes = [at_least.start_up if self.is_timed else spec.reserve for spec in self.probes()]
        number = self.trials_left()
        gone = self.spent_on("probe", "sweep", "idle")
        gone += sum(account.left for account in self.ledger.accounts.values() if account.purpose == "sweep")
        least = least_budget(
            self.config,
            number,
            trials,
            finals,
            min(self.largest_batch, self.validation_windows),
            gone + sum(probes),
        )
        if self.is_timed and probes:
            least = max(least, (gone + sum(probes) / PROBE_SHARE) / self.config.sweep_share)
        if terms.capacity - self.committed < least:
            margin = RESERVE if self.is_timed and is_known else 1.0  # workers also start, and wait
            wanted = self.committed + margin * least
            raise UserError(too_small(terms, wanted, number, len(probes), self.ledger.spent))

    def trials_left(self) -> int:
        """How many first trials are still to be begun, those that other sweeps' trials may replace included."""
        if self.config.search == "optuna":
            return max(0, self.config.trials_of_a_size * len(self.sizes) - len(self.trials()))
        return len(self.points_left(None))

    def next_plan(self, earlier: Plan) -> Plan:
        """The plan of a sweep that is continued: first trials cost what they did, as far as the money lasts.

        Evaluations are over the same windows, so that all trials can be compared.
        """
        number = self.trials_left()
        left = self.sweep_money - self.spent_on("probe", "sweep", "idle")
        left -= sum(account.left for account in self.ledger.accounts.values() if account.purpose == "sweep")
        money = earlier.money
        if number:
            money = min(money, left * (1 - self.config.follow_up_share) / number)
        return self.at_cost(earlier, money)

    def at_cost(self, plan: Plan, money: float) -> Plan:
        """The same plan for first trials that cost `money` quanta, for the sizes that there are now."""
        iters = {name: self.prices(name).iters(money, EVALUATIONS * plan.windows) for name in self.sizes}
        return dataclasses.replace(plan, money=money, iters=iters)

    def note_centres(self, plan: Plan) -> None:
        """Keep, for each size, the rate that first trials are spread around: by a rule, or by other sweeps' trials."""
        centres = dict(self.ledger.notes.get("centres", {}))
        for name, size in self.sizes.items():
            shorter = [
                trial
                for trial in self.evidence()
                if trial.size == name and trial.tokens < LONG_ENOUGH * plan.iters[name] * self.iter_tokens
            ]
            if name in centres:
                continue
            centres[name] = rule_rate(size)
            if len({trial.learning_rate for trial in shorter if trial.status == "finished"}) > 1:
                tokens = plan.iters[name] * self.iter_tokens
                fit = fit_trials(self.evidence(), {name: tokens})
                centres[name] = rounded(fit.learning_rate(name, tokens).middle)
        self.ledger.note("centres", centres)

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
        finals = [name for name, account in self.ledger.accounts.items() if account.purpose == "final"]
        if set(finals) & running:
            return None
        if finals and self.ledger.accounts[finals[-1]].round == self.round:
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
        return self.ledger.idle_share > IDLE_SHARE

    def settings(self, name: str, spec: Spec) -> tuple[int, dict[str, Any]]:
        """Workers and settings of a trial."""
        size = self.sizes[spec.size]
        is_probe, is_final = spec.purpose == "probe", spec.purpose == "final"
        plan = None if is_probe else self.make_plan()
        base = self.batch_base(spec.varied, is_final)
        global_batch = base.global_batch
        eval_iters = 1 if plan is None else plan.eval_iters and max(1, plan.windows // global_batch)
        windows = min(eval_iters * global_batch or self.validation_windows, self.validation_windows)
        interval = math.ceil(spec.iters / (FINAL_EVALUATIONS - 1 if is_final else EVALUATIONS - 1))
        shape = size.settings()
        # A weight decay that is left open follows from this trial's rate and length, not from those of `base`.
        others = {name: value for name, value in spec.varied.items() if name != "global_batch"}
        values = {
            "weight_decay": self.config.train.weight_decay,
            "min_lr": None,
            "warmup_iters": None,
            **settings_for(base, others, spec.iters, spec.learning_rate),
        }
        config = base.reopened(
            n_layer=shape["n_layer"],
            n_head=shape["n_head"],
            n_embd=shape["n_embd"],
            run_name=name,
            wandb_run_name=name,
            checkpoint_dir=join(self.place, "runs"),
            log_dir=str(self.folder / "logs"),
            learning_rate=spec.learning_rate,
            seed=spec.seed,
            lr_decay_iters=None,
            max_iters=spec.iters,
            eval_interval=spec.iters if is_probe else max(1, interval),
            eval_iters=eval_iters,
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
        prices = Prices(0, 0, 0, 0, 0)
        if not (is_probe and self.is_timed):
            prices = self.prices(spec.size, is_final, spec.varied)
        warm_up = warm_up_rows(base, base.num_workers, global_batch)
        return workers, {
            "size": spec.size,
            "purpose": spec.purpose,
            "parameters": size.parameters,
            "iters": spec.iters,
            "iter_tokens": global_batch * size.shape.context_size,
            "varied": spec.varied,
            "unique_tokens": self.unique_tokens,
            "windows": windows,
            "validation_windows": self.validation_windows,
            "whole_windows": final_windows(prices, min(spec.reserve, self.ledger.free), plan)
            if plan is not None and is_final
            else 0,
            "prices": vars(prices),
            "flops": vars(prices_in_flops(size, global_batch, warm_up)),
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
        """A short run of each size that was not measured, nor tried to be since the sweep was continued."""
        begun = {
            (account.settings["size"], account.settings["iter_tokens"])
            for account in self.ledger.accounts.values()
            if account.purpose == "probe" and ("seconds" in account.result or account.round == self.round)
        }
        most = PROBE_SHARE * self.sweep_money / (len(self.sizes) * len(self.probe_batches))
        first = {name: middle_value(values) for name, values in self.varied.items()}
        for name, size in self.sizes.items():
            for batch in self.probe_batches:
                varied = {**first, **batch}
                global_batch = self.batch_base(varied).global_batch
                if (name, global_batch * size.shape.context_size) in begun:
                    continue
                reserve = min(int(most), self.ledger.free)
                if not self.is_timed:
                    reserve = math.ceil(self.prices(name, varied=varied).of(PROBE_ITERS, 2 * global_batch))
                rate = rounded(rule_rate(size))
                yield Spec("probe", name, rate, varied, PROBE_ITERS, reserve, reserve, self.config.train.seed)

    def refuse_failed_probes(self) -> None:
        """Raises: UserError when a size could not be measured."""
        terms = self.ledger.terms
        for account in reversed(self.ledger.accounts.values()):
            size = account.settings["size"]
            if account.purpose != "probe" or self.seconds(size) is not None:
                continue
            if account.result.get("status") == "cut":
                twice = self.committed + 2 * (terms.capacity - self.committed)
                raise UserError(
                    f"--budget-{terms.unit.replace('_', '-')} {terms.budget:g} is too small: size {size} could not be "
                    f"measured in its share of that; {rounded_up(terms, twice)} at least to try that again"
                )
            why = account.result.get("why") or account.result.get("status")
            raise UserError(
                f"size {size} could not be measured: {why}; mend that and raise the budget to try again, or leave the "
                "size out with --fresh"
            )

    def trials(self) -> list[Trial]:
        """The trials of this sweep; final runs before the latest, which are as good as any, among them."""
        rows = trial_rows(self.ledger)
        finals = [
            dataclasses.replace(trial, purpose="sweep")
            for trial in rows
            if trial.purpose == "final" and self.ledger.accounts[trial.trial].round < self.first_round
        ]
        return [trial for trial in rows if trial.purpose == "sweep"] + finals

    def evidence(self) -> list[Trial]:
        """The trials of other sweeps that count here (evidence.py)."""
        return evidence_rows(self.ledger)

    def first_trials(self, plan: Plan) -> Iterator[Spec]:
        """Those that were not begun."""
        if self.config.search != "optuna":
            for point in self.points_left(plan):
                yield self.spec(point, plan)
            return
        done = self.trials()
        if len(done) < self.config.trials_of_a_size * len(self.sizes):
            number = len(done) % self.config.repeats  # of the seed, for the same point as the trial before
            if number:
                before = done[-1]
                rate, varied = before.learning_rate, self.values_of(before)
                yield self.spec(Candidate(before.size, rate, varied, self.config.train.seed + number), plan)
            else:
                yield self.spec(Candidate(*self.ask_optuna(done), self.config.train.seed), plan)

    def points_left(self, plan: Plan | None) -> list[Candidate]:
        """First trials that neither this sweep has begun, nor another one made that is evidence for this plan."""
        config = self.config
        own = [(t.size, t.learning_rate, self.values_of(t), t.seed) for t in self.trials()]
        long_enough = [
            (trial.size, trial.learning_rate, self.values_of(trial), trial.seed)
            for trial in self.evidence()
            if plan is not None and trial.tokens >= LONG_ENOUGH * plan.iters[trial.size] * self.iter_tokens
        ]
        centres = self.ledger.notes.get("centres", {})
        points = []
        for name, size in self.sizes.items():
            centre = centres.get(name, rule_rate(size))
            tried = first_points(
                name,
                centre,
                config.search,
                config.num_rates,
                config.rate_span,
                config.train.seed,
                self.varied,
            )
            middle = {setting: middle_value(values) for setting, values in self.varied.items()}
            tried += [(rounded(rate), middle) for rate in config.add_rates]
            points.append(
                [
                    Candidate(name, rate, varied, config.train.seed + repeat)
                    for rate, varied in tried
                    for repeat in range(config.repeats)
                ]
            )
        in_turn = [
            point for some in zip_longest(*points) for point in some if point
        ]  # all sizes get on alike
        done = own + long_enough
        return [p for p in in_turn if (p.size, p.learning_rate, p.varied, p.seed) not in done]

    def values_of(self, trial: Trial) -> dict[str, Any]:
        """A trial's values of what the sweep varies besides size and rate."""
        return {name: getattr(trial, name) for name in self.varied}

    def ask_optuna(self, done: list[Trial]) -> tuple[str, float, dict[str, Any]]:
        """Size, rate and values that Optuna's TPE suggests, given all trials so far."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        distributions: dict[str, optuna.distributions.BaseDistribution] = {
            "size": optuna.distributions.CategoricalDistribution(list(self.sizes)),
            "factor": optuna.distributions.FloatDistribution(
                1 / self.config.rate_span, self.config.rate_span, log=True
            ),
            **{
                name: optuna.distributions.FloatDistribution(0, 1)  # a position in it
                if isinstance(values, Range)
                else optuna.distributions.CategoricalDistribution(values)
                for name, values in self.varied.items()
            },
        }
        sampler = optuna.samplers.TPESampler(seed=self.config.train.seed + len(done), n_startup_trials=5)
        study = optuna.create_study(sampler=sampler)
        for trial in (*self.evidence(), *done):
            factor = trial.learning_rate / rounded(rule_rate(self.sizes[trial.size]))
            parameters: dict[str, Any] = {"size": trial.size, "factor": factor}
            for name, values in self.varied.items():
                value = getattr(trial, name)
                parameters[name] = values.position(value) if isinstance(values, Range) else value
            is_inside = 1 / self.config.rate_span <= factor <= self.config.rate_span and all(
                holds(values, getattr(trial, name)) for name, values in self.varied.items()
            )
            if trial.bits_per_byte is not None and is_inside:
                study.add_trial(
                    optuna.trial.create_trial(
                        params=parameters, distributions=distributions, value=trial.bits_per_byte
                    )
                )
        asked = study.ask(distributions)
        size = asked.params["size"]
        rate = rounded(rounded(rule_rate(self.sizes[size])) * asked.params["factor"])
        varied = {
            name: values.at(asked.params[name]) if isinstance(values, Range) else asked.params[name]
            for name, values in self.varied.items()
        }
        return size, rate, varied

    def iters(self, size: str, varied: dict[str, Any], plan: Plan) -> int:
        """The length of a first trial."""
        if "global_batch" not in varied:
            return plan.iters[size]
        return self.prices(size, varied=varied).iters(plan.money, EVALUATIONS * plan.windows)

    def spec(self, point: Candidate, plan: Plan, iters: int | None = None) -> Spec:
        """A trial of the sweep, with its reserve."""
        iters = iters or self.iters(point.size, point.varied, plan)
        price = self.prices(point.size, varied=point.varied).of(iters, EVALUATIONS * plan.windows)
        reserve = math.ceil(price * (RESERVE if self.is_timed else 1))
        return Spec(
            "sweep",
            point.size,
            point.learning_rate,
            point.varied,
            iters,
            reserve,
            math.ceil(price),
            point.seed,
        )

    def follow_ups(self, plan: Plan, running: set[str]) -> list[Spec]:
        """What the trials so far suggest, the most promising first; what the sweep's share does not buy is left out."""
        left = self.sweep_money - self.spent_on("probe", "sweep", "idle")
        left -= sum(account.left for account in self.ledger.accounts.values() if account.purpose == "sweep")
        if running or not any(trial.status == "finished" for trial in (*self.trials(), *self.evidence())):
            return []  # what they find counts
        fit = self.make_fit()
        by_promise = sorted(fit.sizes, key=lambda size: -size.probability_best)
        promising = [size.size for size in by_promise if size.probability_best >= LEAST_ODDS]
        specs = [spec for spec in self.beyond_edges(plan, fit, promising) if spec.reserve <= left]
        if specs:
            return specs
        return [spec for spec in self.longer_runs(plan, fit, promising, left) if spec.reserve <= left]

    def beyond_edges(self, plan: Plan, fit: Fit, sizes: list[str]) -> list[Spec]:
        """For each size whose best rate lies beyond those tried, as the fit has it, a rate on that side."""
        specs = []
        for size in sizes:
            tokens = plan.iters[size] * self.iter_tokens
            rates = {
                trial.learning_rate
                for trial in (*self.trials(), *self.evidence())
                if trial.size == size and LONG_ENOUGH * tokens <= trial.planned_tokens <= tokens / LONG_ENOUGH
            }
            best = fit.learning_rate(size, tokens).middle
            if len(rates - set(self.config.add_rates)) >= self.config.num_rates + WIDENINGS:
                continue
            if rates and not min(rates) <= best <= max(rates):
                beyond = max(rates) * EDGE_STEP if best > max(rates) else min(rates) / EDGE_STEP
                point = Candidate(size, rounded(beyond), self.best_varied(fit), self.config.train.seed)
                specs.append(self.spec(point, plan))
        return specs

    def longer_runs(self, plan: Plan, fit: Fit, sizes: list[str], left: float) -> list[Spec]:
        """Runs of the sizes that look best for the final run, as long as `left` buys, at their best rates."""
        specs = []
        varied = self.best_varied(fit)
        for size in sizes[:2]:
            price = self.prices(size, varied=varied)
            tokens = self.batch_base(varied).global_batch * self.sizes[size].shape.context_size
            longest = max((trial.planned_tokens for trial in self.trials() if trial.size == size), default=0)
            # In a sweep that is continued the longest runs grow, as its money did.
            unit = plan.money
            if self.round:
                unit = max(unit, price.of(longest // tokens, EVALUATIONS * plan.windows))
            quanta = min(left / (RESERVE if self.is_timed else 1), self.config.follow_up_factor * unit)
            iters = price.iters(quanta, EVALUATIONS * plan.windows)
            if iters * tokens < 1.5 * longest:
                continue
            rate = rounded(fit.learning_rate(size, iters * tokens).middle)
            spec = self.spec(Candidate(size, rate, varied, self.config.train.seed), plan, iters)
            specs.append(spec)
            left -= spec.reserve
        return specs

    def best_varied(self, fit: Fit) -> dict[str, Any]:
        """What the fit chooses of what the sweep varies besides size and rate."""
        return {name: fit.best_values[name] for name in self.varied}

    def make_fit(self) -> Fit:
        """Fit all trials, for final runs that what is free would buy.

        Raises: UserError when no trial came to its end.
        """
        trials = [*self.trials(), *self.evidence()]
        if not any(trial.status == "finished" for trial in trials):
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
        self.fit = fit_trials(trials, tokens)
        return self.fit

    def final_run(self, plan: Plan) -> Spec:
        """The size and rate that the fit chooses, for all the money that is left."""
        ends = {trial.status for trial in (*self.trials(), *self.evidence())}
        if "finished" not in ends and ("cut" in ends or not ends):
            return self.final_run_by_rule(plan)
        fit = self.make_fit()
        size, varied = fit.best_size, self.best_varied(fit)
        iters = final_iters(self.prices(size, is_final=True, varied=varied), self.ledger.free, plan)
        if iters < 1:
            raise UserError(NO_FINAL_RUN)
        prediction = fit.prediction
        rate = rounded(fit.best_learning_rate)
        choice = {
            "size": size,
            "learning_rate": rate,
            "varied": varied,
            "predicted": [prediction.low, prediction.middle, prediction.high],
            "decision": fit.decision,
            "tokens": fit.final_tokens,
        }
        self.ledger.note("choice", choice)
        least = math.ceil(self.prices(size, is_final=True, varied=varied).of(1, plan.windows, 1))
        seed = self.config.train.seed
        return Spec("final", size, rate, varied, iters, self.ledger.terms.capacity, least, seed)

    def final_run_by_rule(self, plan: Plan) -> Spec:
        """Where there was no money for any trial to come to its end: what is usual without a sweep."""
        varied = {name: middle_value(values) for name, values in self.varied.items()}
        prices = {size: self.prices(size, True, varied) for size in self.sizes}
        iters = {size: final_iters(price, self.ledger.free, plan) for size, price in prices.items()}

        def off(size: str) -> float:
            """How far its tokens would be from what is usual, as a ratio's logarithm."""
            usual = TOKENS_PER_PARAMETER * self.sizes[size].parameters
            return abs(math.log(max(1, iters[size]) * self.iter_tokens / usual))

        size = min(self.sizes, key=off)
        if iters[size] < 1:
            raise UserError(NO_FINAL_RUN)
        rate = rounded(rule_rate(self.sizes[size]))
        decision = (
            f"No trial came to its end with the money there was. The final run takes size {size}, whose tokens are "
            f"nearest to {TOKENS_PER_PARAMETER} for each parameter, and the rule's learning rate, {rate:g}."
        )
        choice = {"size": size, "learning_rate": rate, "varied": varied, "decision": decision}
        self.ledger.note("choice", choice)
        least = math.ceil(prices[size].of(1, plan.windows, 1))
        seed = self.config.train.seed
        return Spec("final", size, rate, varied, iters[size], self.ledger.terms.capacity, least, seed)


def plan_note(number: int) -> str:
    """The ledger's note of the plan of a round."""
    return f"plan {number}" if number else "plan"


def spread(base: ResolvedConfig, slots: int) -> ResolvedConfig:
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
