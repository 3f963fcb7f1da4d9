"""What a sweep does next, decided from its ledger alone, so that it continues wherever it was killed.

Probes measure each size; first trials try learning rates; follow-ups try rates beyond an edge, then longer runs of
the sizes that look best; a fit of all trials chooses size and rate; the final run gets what is left.

A finished sweep that is continued (`Ledger.extend`) does all of that again with the new money. What was tried is not
tried again, and all trials, earlier final runs and those of other sweeps (`--from`) count as evidence.
"""

import dataclasses
import math
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

from nanochat_tct.config import to_dict
from nanochat_tct.data.store import TokenStore
from nanochat_tct.errors import UserError
from nanochat_tct.storage.object_storage import absolute, join
from nanochat_tct.training.config import ResolvedConfig, warm_up_rows
from nanochat_tct.training.plan import make_plan as make_train_plan
from nanochat_tct.training.plan import open_windows
from nanochat_tct.tuning.budget import (
    EVALUATIONS,
    FINAL_EVALUATIONS,
    MICRO,
    MIN_ITERS,
    Prices,
    final_iters,
    final_windows,
    least_budget,
    make_plan,
    money_of_a_trial,
    prices_in_flops,
)
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.fit import Fit, fit_trials
from nanochat_tct.tuning.ledger import Ledger, OverBudget
from nanochat_tct.tuning.records import Centres, Choice, Plan, Purpose, Trial
from nanochat_tct.tuning.results import evidence_rows, trial_rows
from nanochat_tct.tuning.space import (
    Size,
    ask_optuna,
    first_points,
    grid_values,
    middle_values,
    rounded,
    settings_for,
)

PROBE_ITERS = 10
PROBE_SHARE = 0.5  # of the sweep's money that probes may take at most; they give back what they do not use
RESERVE = 1.25  # times the forecast is reserved where the budget is in time; the rest is given back
NO_FINAL_RUN = "nothing is left for a final run: raise the budget"
TOKENS_PER_PARAMETER = 20  # of a model that is trained to the rule of thumb
NEAR_THE_RULE = 5.0  # times as many tokens as that at most, or as few
FAR_FROM_IT = 20.0  # times as many or as few: such a size loses to one that is near
WIDENINGS = 2  # of a size's range, at most
EDGE_STEP = 3.0  # the factor between a rate beyond the edge and the last one
LEAST_ODDS = 0.05  # of being the best size, for which more trials of it are worth their money
START_SECONDS = 3.0  # less than the start of a worker takes
LEAST_SECONDS = 1.0  # less than a trial takes on a worker that has started
LONG_ENOUGH = 0.5  # of a first trial: another sweep's of that length need not be made again


@dataclasses.dataclass(frozen=True)
class Spec:
    """A trial that is to be begun; `with_money` gives one of the sweep its length and reserve."""

    size: str
    learning_rate: float
    varied: dict[str, Any]  # setting -> value, of what else the sweep varies
    seed: int
    purpose: Purpose = "sweep"
    iters: int = 0
    reserve: int = 0  # quanta
    least: int = 0  # quanta that are enough, where there are not as many
    is_alone: bool = False  # it takes the workers of all slots

    @property
    def takes_all(self) -> bool:
        return self.is_alone or self.purpose == "final"


class Scheduler:
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
        self.sizes, self.cores, self.slots = sizes, cores, slots
        self.output = absolute(config.output)  # a path, or a URI that `folder` is this machine's part of
        self.is_timed = ledger.terms.is_timed
        self.varied = config.varied()
        self.batches: list[int] = grid_values(self.varied.get("global_batch", [base.global_batch]))
        self.iter_tokens = base.global_batch * base.context_size
        training, validation = (open_windows(store, base, split) for split in ("train", "val"))
        self.validation_windows = len(validation)
        self.unique_tokens = min(len(training), base.train_samples or len(training)) * base.context_size

    # ------------------------------------------------------------------------- the next trial

    def next_trial(self, running: set[str]) -> str | bool | None:
        """The trial to start now: its name, None to wait for others, False when all is done.

        Args:
            running: names of those that are running in this session.
        Raises: UserError when it cannot continue.
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
        if plan.has_trials and not self.ledger.is_idle_too_long:
            following = next(self.first_trials(plan), None) or next(
                iter(self.follow_ups(plan, running)), None
            )
            with suppress(OverBudget):  # kills and slow starts took its money: the final run has the rest
                if following is not None:
                    return self.begin(following)
        if running:
            return None
        try:
            return self.begin(self.final_run(plan))
        except OverBudget as error:
            raise UserError(NO_FINAL_RUN) from error

    def begin(self, spec: Spec) -> str:
        """Reserve a trial's money, and keep all that its processes need.

        Raises: OverBudget when the money is not there.
        """
        number = sum(account.purpose == spec.purpose for account in self.ledger.accounts.values())
        name = f"{spec.purpose}-{number:02d}-{spec.size}"
        settings = self.settings(name, spec)
        workers = settings["config"]["num_workers"]
        self.ledger.open(name, spec.purpose, workers, settings, spec.reserve, spec.least)
        return name

    def settings(self, name: str, spec: Spec) -> dict[str, Any]:
        """What the ledger keeps of a trial for its processes."""
        plan = None if spec.purpose == "probe" else self.make_plan()
        base = self.batch_base(spec.varied, spec.takes_all)
        batch = base.global_batch
        eval_iters = 1 if plan is None else plan.eval_iters and max(1, plan.windows // batch)
        config = self.run_config(base, name, spec, eval_iters)
        prices, whole_windows = Prices(0, 0, 0, 0, 0), 0
        if plan is not None or not self.is_timed:
            prices = self.prices(spec.size, spec.takes_all, spec.varied)
        if plan is not None and spec.purpose == "final":
            whole_windows = final_windows(prices, min(spec.reserve, self.ledger.free), plan)
        at_a_time = 1 if spec.takes_all else self.slots
        return {
            "size": spec.size,
            "purpose": spec.purpose,
            "parameters": self.sizes[spec.size].parameters,
            "iters": spec.iters,
            "iter_tokens": batch * base.context_size,
            "varied": spec.varied,
            "unique_tokens": self.unique_tokens,
            "windows": min(eval_iters * batch or self.validation_windows, self.validation_windows),
            "validation_windows": self.validation_windows,
            "whole_windows": whole_windows,
            "prices": vars(prices),
            "flops": vars(self.flops(spec.size, base)),
            "hopeless": self.config.hopeless,
            "threads": max(1, self.cores // (config.num_workers * at_a_time)),
            "group": self.folder.name,
            "derives_weight_decay": self.weight_decay(spec) is None,
            "config": to_dict(config),
        }

    def weight_decay(self, spec: Spec) -> float | None:
        """A trial's weight decay; None where it follows from the trial's own learning rate and length."""
        decay: float | None = spec.varied.get("weight_decay", self.config.train.weight_decay)
        return decay

    def run_config(self, base: ResolvedConfig, name: str, spec: Spec, eval_iters: int) -> ResolvedConfig:
        """The settings of a trial's run."""
        is_probe = spec.purpose == "probe"
        evaluations = FINAL_EVALUATIONS if spec.purpose == "final" else EVALUATIONS
        interval = math.ceil(spec.iters / (evaluations - 1))
        others = {name: value for name, value in spec.varied.items() if name != "global_batch"}
        # Those that are open here follow from this trial's rate and length, not from those of `base`.
        derived = {
            "min_lr": None,
            "warmup_iters": None,
            "weight_average": self.config.train.weight_average,
            "weight_decay": self.weight_decay(spec),
        }
        config = base.reopened(
            **self.sizes[spec.size].settings(),
            run_name=name,
            wandb_run_name=name,
            checkpoint_dir=join(self.output, "runs"),
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
            **derived | settings_for(base, others, spec.iters, spec.learning_rate),
        )
        return make_train_plan(config).config

    # ------------------------------------------------------------------------- rounds and their money

    @property
    def round(self) -> int:
        """How often the sweep was continued with other terms."""
        return len(self.ledger.rounds) - 1

    @property
    def committed(self) -> int:
        """Quanta that were gone when the first of the current rounds began."""
        return self.ledger.rounds[self.ledger.first_round].committed

    @property
    def sweep_money(self) -> float:
        """Quanta for the probes and trials of these rounds."""
        return self.config.sweep_share * (self.ledger.terms.capacity - self.committed)

    @property
    def sweep_gone(self) -> int:
        """Quanta of `sweep_money` that are spent or reserved."""
        accounts = self.ledger.accounts.values()
        reserved = sum(account.left for account in accounts if account.purpose == "sweep")
        return self.spent_on("probe", "sweep", "idle") + reserved

    def spent_on(self, *purposes: str) -> int:
        """Quanta that these rounds have cost, of settled and of open trials."""
        first = self.ledger.first_round
        accounts = [account for account in self.ledger.accounts.values() if account.round >= first]
        spent = sum(account.charged for account in accounts if account.purpose in purposes)
        return spent + (self.ledger.idle - self.ledger.rounds[first].idle if "idle" in purposes else 0)

    # ------------------------------------------------------------------------- prices

    def batch_base(self, varied: dict[str, Any], takes_all: bool = False) -> ResolvedConfig:
        """`base` with a trial's global batch; one that takes the workers of all slots may have more."""
        batch = {name: value for name, value in varied.items() if name == "global_batch"}
        base = dataclasses.replace(self.base, **settings_for(self.base, batch))
        return spread(base, self.slots) if takes_all else base

    def flops(self, size: str, base: ResolvedConfig) -> Prices:
        """Prices of a size in FLOPs."""
        rows = warm_up_rows(base, base.num_workers, base.global_batch)
        return prices_in_flops(self.sizes[size].row_flops, base.global_batch, rows)

    def prices(self, size: str, takes_all: bool = False, varied: dict[str, Any] | None = None) -> Prices:
        """Prices of a size in quanta; where the budget is in time, the size is probed."""
        base = self.batch_base(varied or {}, takes_all)
        if not self.is_timed:
            return self.flops(size, base)
        seconds = self.seconds(size, base.global_batch)
        assert seconds is not None
        return seconds.scaled(self.base.num_workers * MICRO)

    def seconds(self, size: str, global_batch: int | None = None) -> Prices | None:
        """Prices in seconds, as the size's probes measured them; None before that.

        The price of an iter is interpolated between two global batches.
        """
        probed = {
            account.settings["iter_tokens"] // self.base.context_size: Prices(**account.result["seconds"])
            for account in self.ledger.accounts.values()
            if account.purpose == "probe" and account.settings["size"] == size and "seconds" in account.result
        }
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

    # ------------------------------------------------------------------------- sizes that can win

    def contenders(self) -> list[str]:
        """The sizes that get trials; all of them until prices are measured.

        Where the final run of one size would see about as many tokens a parameter as is usual, a size that would see
        far fewer or more cannot win. Sizes that were tried and those of --add-sizes stay.
        """
        if self.is_timed and not self.is_probed:
            return list(self.sizes)
        off = {size: distance_from_rule(self.tokens_a_parameter(size)) for size in self.sizes}
        is_one_near = min(off.values()) <= math.log(NEAR_THE_RULE)
        kept = {trial.size for trial in self.all_trials()} | set(self.config.add_sizes)
        return [
            size
            for size in self.sizes
            if size in kept or not is_one_near or off[size] <= math.log(FAR_FROM_IT)
        ]

    def tokens_a_parameter(self, size: str) -> float:
        """Tokens a parameter of a final run, roughly."""
        left = max(1, self.ledger.terms.capacity - self.committed)  # nothing, where a done sweep is continued
        money = (1 - self.config.sweep_share) * left
        return money / self.prices(size, True).iter * self.iter_tokens / self.sizes[size].parameters

    # ------------------------------------------------------------------------- the plan

    def make_plan(self) -> Plan:
        """Divide the sweep's money, once all sizes are probed; a plan is made once in a round and kept.

        Raises: UserError when the budget is too small.
        """
        plan = self.ledger.latest(Plan)
        if plan is not None and plan.round == self.round:
            return plan
        too_small = self.why_too_small
        if too_small:
            # The probes only now show how slow this machine is. A refusal would waste the money they cost.
            if not self.is_timed or self.config.dry_run:
                raise UserError(too_small)
            print(f"{too_small}; no trials begin, and the final run gets what is left", file=sys.stderr)
        prices = {name: self.prices(name) for name in self.contenders()}
        if plan is None:
            left = self.sweep_money - self.spent_on("probe", "idle")
            plan = make_plan(self.config, left, prices, max(self.batches), self.validation_windows)
        else:
            # First trials cost what they did, as far as the money lasts, and are measured on the same windows, so that
            # all trials can be compared.
            money, number = plan.money, self.trials_left()
            if number:
                left = self.sweep_money - self.sweep_gone
                money = min(money, money_of_a_trial(self.config, left, number, prices.values()))
            iters = {name: price.iters(money, plan.windows) for name, price in prices.items()}
            plan = dataclasses.replace(plan, money=money, iters=iters)
        plan = dataclasses.replace(plan, round=self.round, has_trials=not too_small)
        self.note_centres(plan)
        self.ledger.note(plan)
        return plan

    @property
    def why_too_small(self) -> str | None:
        """The message for a budget that does not buy the least, which it names; None for one that does.

        This decides before anything is spent. Where the budget is in time, and some size is not measured yet, it
        counts only the start of workers and a second for each trial; it decides again once all are measured. Where
        idle workers have cost too much, the final run gets what is left, however little that is.
        """
        if self.ledger.is_idle_too_long:
            return None
        terms, batch = self.ledger.terms, {"global_batch": max(self.batches)}
        is_priced = not self.is_timed or self.is_probed
        at_least = Prices(LEAST_SECONDS * self.base.num_workers * MICRO, 0, 0, 0, 0)
        sizes = self.contenders()
        trials = [self.prices(size, varied=batch) if is_priced else at_least for size in sizes]
        finals = [self.prices(size, True, batch) if is_priced else at_least for size in sizes]
        probes = [at_least.start_up if self.is_timed else spec.reserve for spec in self.probes()]
        number, windows = self.trials_left(), min(max(self.batches), self.validation_windows)
        gone = self.sweep_gone + sum(probes)
        if not is_priced:
            gone += START_SECONDS * self.slots * self.base.num_workers * MICRO
        least = least_budget(self.config, number, trials, finals, windows, gone)
        if self.is_timed and probes:
            least = max(least, (self.sweep_gone + sum(probes) / PROBE_SHARE) / self.config.sweep_share)
        if terms.capacity - self.committed >= least:
            return None
        margin = RESERVE if self.is_timed and is_priced else 1.0  # workers also start, and wait
        probed = f"{len(probes)} probe{'s' * (len(probes) != 1)}, " if probes else ""
        tried = f"{number} trial{'s' * (number != 1)} of {MIN_ITERS} iters and " if number else ""
        before = (
            f", with the {terms.amount(self.ledger.spent):.3g} that is spent," if self.ledger.spent else ""
        )
        return (
            f"{terms.flag} is too small: {probed}{tried}a final run take{before} "
            f"{terms.rounded_up(self.committed + margin * least)} at least; raise it, or take fewer or smaller "
            "--sizes, or less of --num-rates and --vary"
        )

    def trials_left(self) -> int:
        """How many first trials are still to be begun, those that other sweeps' trials may replace included."""
        if self.config.search == "optuna":
            return max(0, self.config.trials_of_a_size * len(self.contenders()) - len(self.trials()))
        return len(self.points_left(None))

    def note_centres(self, plan: Plan) -> None:
        """Keep, for each size, the rate that first trials are spread around: by a rule, or by other sweeps' trials."""
        centres = self.centres()
        for name in plan.iters.keys() - centres.keys():
            tokens = plan.iters[name] * self.iter_tokens
            centres[name] = self.sizes[name].rule_rate
            shorter = {
                trial.learning_rate
                for trial in self.evidence()
                if (trial.size, trial.status) == (name, "finished") and trial.tokens < LONG_ENOUGH * tokens
            }
            if len(shorter) > 1:
                fit = fit_trials(self.evidence(), {name: tokens})
                centres[name] = rounded(fit.learning_rate(name, tokens).middle)
        self.ledger.note(Centres({name: centres[name] for name in self.sizes if name in centres}))

    def centres(self) -> dict[str, float]:
        """The noted centres, by size."""
        note = self.ledger.latest(Centres)
        return dict(note.rates) if note else {}

    # ------------------------------------------------------------------------- probes

    @property
    def is_probed(self) -> bool:
        return all(self.seconds(size) is not None for size in self.sizes)

    @property
    def probe_batches(self) -> list[int]:
        """The global batches that probes run with: where time must be measured, the largest and the smallest."""
        ends = max(self.batches), min(self.batches)
        return list(dict.fromkeys(ends)) if self.is_timed else self.batches[:1]

    def probes(self) -> Iterator[Spec]:
        """A short run of each size that was not measured, nor tried to be since the sweep was continued."""
        begun = {
            (account.settings["size"], account.settings["iter_tokens"])
            for account in self.ledger.accounts.values()
            if account.purpose == "probe" and ("seconds" in account.result or account.round == self.round)
        }
        most = PROBE_SHARE * self.sweep_money / (len(self.sizes) * len(self.probe_batches))
        for name, size in self.sizes.items():
            for batch in self.probe_batches:
                if (name, batch * self.base.context_size) in begun:
                    continue
                varied = middle_values(self.varied)
                varied |= {"global_batch": batch} if "global_batch" in varied else {}
                reserve = min(int(most), self.ledger.free)
                if not self.is_timed:
                    reserve = math.ceil(
                        self.prices(name, varied=varied).of(PROBE_ITERS, batch, evaluations=2)
                    )
                rate, seed = rounded(size.rule_rate), self.config.train.seed
                yield Spec(name, rate, varied, seed, "probe", PROBE_ITERS, reserve, reserve)

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
                    f"{terms.flag} is too small: size {size} could not be measured in its share of that; "
                    f"{terms.rounded_up(twice)} at least to try that again"
                )
            why = account.result.get("why") or account.result.get("status")
            raise UserError(
                f"size {size} could not be measured: {why}; fix that and raise the budget to try again, or leave the "
                "size out with --fresh"
            )

    # ------------------------------------------------------------------------- first trials

    def trials(self) -> list[Trial]:
        """The trials of this sweep, and its earlier final runs, which are evidence like any trial."""
        rows = trial_rows(self.ledger)
        finals = [
            dataclasses.replace(trial, purpose="sweep")
            for trial in rows
            if trial.purpose == "final" and self.ledger.accounts[trial.trial].round < self.ledger.first_round
        ]
        return [trial for trial in rows if trial.purpose == "sweep"] + finals

    def evidence(self) -> list[Trial]:
        """The trials of other sweeps that count here (continuing.py)."""
        return evidence_rows(self.ledger)

    def all_trials(self) -> list[Trial]:
        return [*self.trials(), *self.evidence()]

    def first_trials(self, plan: Plan) -> Iterator[Spec]:
        """First trials that have not begun."""
        if self.config.search != "optuna":
            for point in self.points_left(plan):
                yield self.with_money(point, plan)
            return
        done, seed = self.trials(), self.config.train.seed
        sizes = {name: self.sizes[name] for name in plan.iters}
        if len(done) < self.config.trials_of_a_size * len(sizes):
            number = len(done) % self.config.repeats  # of the seed, for the same point as the trial before
            if number:
                spec = Spec(done[-1].size, done[-1].learning_rate, self.values_of(done[-1]), seed + number)
            else:
                span = self.config.rate_span
                asked = ask_optuna(self.all_trials(), sizes, self.varied, span, seed + len(done))
                spec = Spec(*asked, seed)
            yield self.with_money(spec, plan)

    def points_left(self, plan: Plan | None) -> list[Spec]:
        """First trials that neither this sweep has begun, nor another one made that is evidence for this plan."""
        config, seed, centres = self.config, self.config.train.seed, self.centres()
        made = self.trials()
        if plan is not None:
            made += [
                trial
                for trial in self.evidence()
                if trial.tokens >= LONG_ENOUGH * plan.iters[trial.size] * self.iter_tokens
            ]
        done = [(trial.size, trial.learning_rate, self.values_of(trial), trial.seed) for trial in made]
        points = []
        for name in self.contenders() if plan is None else plan.iters:
            centre = centres.get(name, self.sizes[name].rule_rate)
            search, varied = config.search, self.varied
            tried = first_points(name, centre, search, config.num_rates, config.rate_span, seed, varied)
            tried += [(rounded(rate), middle_values(varied)) for rate in config.add_rates]
            repeats = range(config.repeats)
            points.append([Spec(name, rate, values, seed + i) for rate, values in tried for i in repeats])
        in_turn = [point for some in zip_longest(*points) for point in some]  # all sizes get on alike
        return [p for p in in_turn if p and (p.size, p.learning_rate, p.varied, p.seed) not in done]

    def values_of(self, trial: Trial) -> dict[str, Any]:
        """A trial's values of all that is varied besides size and rate."""
        return {name: getattr(trial, name) for name in self.varied}

    def with_money(self, spec: Spec, plan: Plan, iters: int | None = None) -> Spec:
        """A trial of the sweep with its reserve; of the length of a first trial unless that is given."""
        prices = self.prices(spec.size, spec.takes_all, spec.varied)
        if iters is None:
            is_planned = "global_batch" not in spec.varied
            iters = plan.iters[spec.size] if is_planned else prices.iters(plan.money, plan.windows)
        price = prices.of(iters, plan.windows)
        reserve = math.ceil(price * (RESERVE if self.is_timed else 1))
        return dataclasses.replace(spec, iters=iters, reserve=reserve, least=math.ceil(price))

    # ------------------------------------------------------------------------- follow-ups

    def follow_ups(self, plan: Plan, running: set[str]) -> list[Spec]:
        """What the trials so far suggest, the most promising first; what the sweep's share does not buy is left out.

        Each takes the workers of all slots: nothing runs beside it, as the next one follows from what it finds.
        """
        left = self.sweep_money - self.sweep_gone
        if running or not any(trial.status == "finished" for trial in self.all_trials()):
            return []  # what they find counts
        fit = self.make_fit()
        by_promise = sorted(fit.sizes, key=lambda size: -size.probability_best)
        promising = [size.size for size in by_promise if size.probability_best >= LEAST_ODDS]
        beyond = [spec for spec in self.beyond_edges(plan, fit, promising) if spec.reserve <= left]
        longer = self.longer_runs(plan, fit, promising, left) if not beyond else []
        return beyond or [spec for spec in longer if spec.reserve <= left]

    def beyond_edges(self, plan: Plan, fit: Fit, sizes: list[str]) -> list[Spec]:
        """For each size whose best rate lies beyond those tried, as the fit has it, a rate on that side."""
        specs = []
        for size in sizes:
            tokens = plan.iters[size] * self.iter_tokens
            rates = {
                trial.learning_rate
                for trial in self.all_trials()
                if trial.size == size and LONG_ENOUGH * tokens <= trial.planned_tokens <= tokens / LONG_ENOUGH
            }
            best = fit.learning_rate(size, tokens).middle
            if len(rates - set(self.config.add_rates)) >= self.config.num_rates + WIDENINGS:
                continue
            if rates and not min(rates) <= best <= max(rates):
                beyond = max(rates) * EDGE_STEP if best > max(rates) else min(rates) / EDGE_STEP
                seed = self.config.train.seed
                point = Spec(size, rounded(beyond), self.best_varied(fit), seed, is_alone=True)
                specs.append(self.with_money(point, plan))
        return specs

    def longer_runs(self, plan: Plan, fit: Fit, sizes: list[str], left: float) -> list[Spec]:
        """Runs of the two sizes that look best for the final run, at their best rates; they share `left` evenly."""
        varied, windows = self.best_varied(fit), plan.windows
        tokens = self.batch_base(varied).global_batch * self.base.context_size

        def longer(size: str, left: float) -> int:
            """How many iters `left` buys; 0 where that is hardly longer than a trial that was made."""
            price = self.prices(size, True, varied)
            longest = max((trial.planned_tokens for trial in self.trials() if trial.size == size), default=0)
            # In a sweep that is continued the longest runs grow, as its money did.
            unit = max(plan.money, price.of(longest // tokens, windows)) if self.round else plan.money
            most = self.config.follow_up_share * self.sweep_money / min(2, len(plan.iters))
            quanta = min(left / (RESERVE if self.is_timed else 1), self.config.follow_up_factor * unit, most)
            iters = price.iters(quanta, windows)
            return iters if iters * tokens >= 1.5 * longest else 0

        sizes = [size for size in sizes[:2] if longer(size, left)]
        specs = []
        for size in sizes:
            if iters := longer(size, left / len(sizes)):
                rate = rounded(fit.learning_rate(size, iters * tokens).middle)
                spec = Spec(size, rate, varied, self.config.train.seed, is_alone=True)
                specs.append(self.with_money(spec, plan, iters))
        return specs

    def best_varied(self, fit: Fit) -> dict[str, Any]:
        """The fit's choice for all that is varied besides size and rate."""
        return {name: fit.best_values[name] for name in self.varied}

    def final_tokens(self, plan: Plan, varied: dict[str, Any] | None = None) -> dict[str, int]:
        """Size -> tokens of a final run for what is free."""
        prices = {size: self.prices(size, True, varied) for size in self.sizes}
        free = self.ledger.free
        iters = {size: max(1, final_iters(price, free, plan)) for size, price in prices.items()}
        return {size: number * self.iter_tokens for size, number in iters.items()}

    def make_fit(self) -> Fit:
        """Fit all trials, for final runs that what is free would buy.

        Raises: UserError when no trial came to its end.
        """
        trials = self.all_trials()
        if not any(trial.status == "finished" for trial in trials):
            raise UserError(
                "no trial came to its end: lower --rate-span, or see the log.txt of each in "
                f"{self.folder / 'logs'}; then begin again with --fresh"
            )
        return fit_trials(trials, self.final_tokens(self.make_plan()))

    # ------------------------------------------------------------------------- the final run

    def final_run(self, plan: Plan) -> Spec:
        """The size and rate that the fit chooses, for all the money that is left."""
        ends = {trial.status for trial in self.all_trials()}
        by_rule = "finished" not in ends and ("cut" in ends or not ends)
        choice = self.choose_by_rule(plan) if by_rule else self.choose()
        prices = self.prices(choice.size, True, choice.varied)
        iters, least = final_iters(prices, self.ledger.free, plan), math.ceil(prices.of(1, plan.windows, 1))
        if iters < 1:
            raise UserError(NO_FINAL_RUN)
        self.ledger.note(choice)
        point = choice.size, choice.learning_rate, choice.varied, self.config.train.seed
        return Spec(*point, "final", iters, self.ledger.terms.capacity, least)

    def choose(self) -> Choice:
        """The choice of the fit."""
        fit = self.make_fit()
        best, varied = fit.best, self.best_varied(fit)
        rate = rounded(best.learning_rate.middle)
        return Choice(best.size, rate, varied, fit.decision, best.bits_per_byte, fit.final_tokens)

    def choose_by_rule(self, plan: Plan) -> Choice:
        """The choice of the rule of thumb, where the money did not suffice for any trial."""
        varied = middle_values(self.varied)
        tokens = self.final_tokens(plan, varied)
        off = {size: distance_from_rule(tokens[size] / self.sizes[size].parameters) for size in self.sizes}
        size = min(off, key=lambda size: off[size])
        rate = rounded(self.sizes[size].rule_rate)
        decision = (
            f"No trial came to its end with the money there was. The final run takes size {size}, whose tokens are "
            f"nearest to {TOKENS_PER_PARAMETER} for each parameter, and the rule's learning rate, {rate:g}."
        )
        return Choice(size, rate, varied, decision)


def distance_from_rule(tokens_a_parameter: float) -> float:
    """How far a run is from the rule of thumb for its length, as the logarithm of a ratio."""
    return abs(math.log(tokens_a_parameter / TOKENS_PER_PARAMETER))


def spread(base: ResolvedConfig, slots: int) -> ResolvedConfig:
    """The same global batch on `slots` times as many workers, where it can be divided: for a run that takes all."""
    workers = base.num_workers * slots
    if base.gradient_accumulation % slots == 0:
        accumulation = base.gradient_accumulation // slots
        return dataclasses.replace(base, gradient_accumulation=accumulation, num_workers=workers)
    if base.batch_size != "auto" and base.batch_size % slots == 0:
        return dataclasses.replace(base, batch_size=base.batch_size // slots, num_workers=workers)
    return base
