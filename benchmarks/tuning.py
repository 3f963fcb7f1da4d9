"""Which way to spend a budget finds the best model: final validation bits per byte at equal FLOPs.

    python benchmarks/tuning.py --corpus FOLDER

Tiny models on real workflows, on CPU; everything a strategy does is charged (warm-up, trials, evaluations, the final
run and its measurement), and each gets the same budget, model sizes, data, batch and code that trains:

- job: what `nanochat-tct tune` does: its own ledger, decisions and trials (tuning/sweep.py), in this process
  instead of on Ray, one trial at a time;
- random: 30% of the budget for random search, as many trials as the job's first ones; the rest trains the best;
- asha: Ray's ASHAScheduler as its guide shows it (10 samples, 10 steps, grace period 1, reduction factor 2), its
  samples in turn, a step each; more samples while money lasts; the best trial is the result;
- hyperband: as random, with the brackets of Hyperband (Li et al., 2018; 4, 3 and 3 trials that may grow by a factor
  of 4, 2 and 1, half of them going on each time) in place of trials of equal length;
- tpe: as random, with Optuna's TPE in its default setting;
- rule, rule-small: no search: `train`'s default learning rate of 0.96 / width, for --fixed-size and for the first of
  --sizes, all of the budget;
- fixed: no search: learning rate 3e-4, --fixed-size, all of the budget.

The learning rates of random, asha, hyperband and tpe are log-uniform from 1e-4 to 1e-1, as in Ray's guide. With
--rule-range they are those of the job: its rule's rate, and a factor of 4 around it. All strategies of a seed begin
with the same weights and see the same order of windows. Documents to measure on belong to other owners than those to
train on, and are no near-copies of them.

A finished run in the cache is not repeated, and the job goes on with its ledger.
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import math
import os
import queue
import random
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed
from benchmarks.held_out import store_of
from nanochat_tct.data.store import TokenStore
from nanochat_tct.errors import UserError, exit_code
from nanochat_tct.evaluation.evaluate import evaluate_loss
from nanochat_tct.generation.generate import load
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.training.checkpoint import latest_checkpoint
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.training.distributed import StoppedTogether, Worker
from nanochat_tct.training.micro_batch import warm_up_rows
from nanochat_tct.training.plan import make_plan as make_train_plan
from nanochat_tct.training.trainer import Reporter, Trainer, open_windows
from nanochat_tct.tuning.alone import run_alone
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.plan import EVALUATION_SHARE, EVALUATIONS, Prices, prices_in_flops
from nanochat_tct.tuning.ranges import rounded
from nanochat_tct.tuning.space import Size, make_size, rule_rate

STRATEGIES = ("job", "random", "asha", "hyperband", "tpe", "rule", "rule-small", "fixed")
WITHOUT_SEARCH = ("rule", "rule-small", "fixed")
SWEEP_SHARE = 0.3
FIXED_RATE = 3e-4
GUIDE_RATES = (1e-4, 1e-1)
ASHA_SAMPLES, ASHA_STEPS, ASHA_UNITS = 10, 10, 36  # about so many steps do all samples together take
HYPERBAND_BRACKETS, HYPERBAND_STEPS = (
    ((4, 1), (3, 2), (3, 4)),
    4,
)  # trials and the steps that each takes at least
HYPERBAND_UNITS = 28  # steps of all its trials together
WORKER = Worker(0, 1, torch.device("cpu"))


class OutOfMoney(Exception):
    """A strategy asked for more than its budget."""


@dataclass(frozen=True)
class Setting:
    """What all strategies share."""

    data_dir: str
    budget: float  # FLOPs
    sizes: tuple[str, ...]
    fixed_size: str
    num_rates: int  # of the job, for each size, at first
    context_size: int
    batch_size: int
    rule_range: bool

    @property
    def key(self) -> str:
        values = {**dataclasses.asdict(self), "data_dir": Path(self.data_dir).name}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", default=os.environ.get("NANOCHAT_TCT_CORPUS"), help="folder")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--seeds", default="0,1,2,3,4", help="of weights, order of windows, draws")
    parser.add_argument("--budget-flops", type=float, default=1.6e12)
    parser.add_argument("--sizes", default="1x32,2x64", help="layers x width")
    parser.add_argument("--fixed-size", default="2x64")
    parser.add_argument("--num-rates", type=int, default=3)
    parser.add_argument("--context-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=4, help="windows")
    parser.add_argument("--validation-documents", type=int, default=60)
    parser.add_argument("--rule-range", action="store_true")
    parser.add_argument("--cache", default="runs/tuning", help="folder of data and of finished runs")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # the job asks for it
    torch.set_num_threads(1)
    return exit_code(lambda: compare(arguments))


def compare(arguments: argparse.Namespace) -> None:
    """Make the runs that are not in the cache yet, and print the table of all that are."""
    strategies = arguments.strategies.split(",")
    if not set(strategies) <= set(STRATEGIES):
        raise UserError(f"--strategies {arguments.strategies}: each is one of {', '.join(STRATEGIES)}")
    cache = Path(arguments.cache).resolve()
    setting = Setting(
        store_of(arguments.corpus, cache, arguments.validation_documents, with_masks=True),
        arguments.budget_flops,
        tuple(arguments.sizes.split(",")),
        arguments.fixed_size,
        arguments.num_rates,
        arguments.context_size,
        arguments.batch_size,
        arguments.rule_range,
    )
    path = cache / "results.json"
    results: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    for seed, strategy in itertools.product(map(int, arguments.seeds.split(",")), strategies):
        # The range of rates changes nothing for these.
        is_same = strategy in ("job", *WITHOUT_SEARCH)
        key = dataclasses.replace(setting, rule_range=False).key if is_same else setting.key
        if any((run["strategy"], run["seed"], run["key"]) == (strategy, seed, key) for run in results):
            continue
        started, cpu = time.monotonic(), time.process_time()
        folder = cache / f"{key}-{strategy}-{seed}"
        run = {"strategy": strategy, "seed": seed, "key": key, "rule_range": setting.rule_range}
        run |= run_strategy(strategy, setting, seed, folder)
        run |= {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu}
        results.append(run)
        path.write_text(json.dumps(results, indent=1) + "\n")
        if strategy != "job":
            shutil.rmtree(folder, ignore_errors=True)
        print(
            f"{strategy} seed {seed}: {run['bits_per_byte']:.4f} bits per byte, {run['size']} at "
            f"{run['learning_rate']:.3g}, {run['spent'] / setting.budget:.1%} of the budget, "
            f"{run['trials']} trials, {run['seconds']:.0f} s ({run['cpu_seconds']:.0f} s of CPU)",
            flush=True,
        )
    keys = {setting.key, dataclasses.replace(setting, rule_range=False).key}
    print(table([run for run in results if run["key"] in keys]))


def table(results: list[dict[str, Any]]) -> str:
    """The runs as a Markdown table, one row a strategy; of the seeds that all of them have."""
    by_name: dict[str, dict[int, dict[str, Any]]] = {}
    for run in results:
        name = run["strategy"]
        if run["rule_range"] and name not in ("job", *WITHOUT_SEARCH):
            name += ", the job's rates"
        by_name.setdefault(name, {})[run["seed"]] = run
    seeds = sorted(set.intersection(*(set(runs) for runs in by_name.values()))) if by_name else []
    if not seeds:
        return "no seed is finished by all strategies yet"
    fixed = by_name.get("fixed")
    lines = [
        f"Seeds {', '.join(map(str, seeds))}; bits per byte of the whole validation split, less is better.",
        "",
        "| strategy | bits per byte, mean | deviation | min..max | against fixed | spent | chosen |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, runs in by_name.items():
        bits = [runs[seed]["bits_per_byte"] for seed in seeds]
        deviation = f"{statistics.stdev(bits):.4f}" if len(bits) > 1 else ""
        against = ""
        if fixed is not None:
            against = f"{statistics.mean(bits) / statistics.mean(fixed[s]['bits_per_byte'] for s in seeds) - 1:+.1%}"
        chosen = ", ".join(f"{runs[seed]['size']} {runs[seed]['learning_rate']:.2g}" for seed in seeds)
        spent = statistics.mean(runs[seed]["spent"] / runs[seed]["budget"] for seed in seeds)
        lines.append(
            f"| {name} | {statistics.mean(bits):.4f} | {deviation} | {min(bits):.4f}..{max(bits):.4f} | "
            f"{against} | {spent:.1%} | {chosen} |"
        )
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------------
# What strategies are made of


class Bench:
    """One strategy's budget, and the runs that it spends it on."""

    def __init__(self, setting: Setting, seed: int, folder: Path) -> None:
        self.setting, self.seed, self.folder = setting, seed, folder
        self.left, self.trials = setting.budget, 0
        vocab_size = load_tokenizer("builtin").vocab_size()
        base = TrainConfig(context_size=setting.context_size)
        self.sizes: dict[str, Size] = {
            name: make_size(name, base, vocab_size) for name in {*setting.sizes, setting.fixed_size}
        }
        config = make_train_plan(self.config("base", setting.sizes[0], 1e-3, 1)).config
        self.store = TokenStore.open(setting.data_dir, verify=False)
        self.validation = open_windows(self.store, config, "val")
        # As many windows as the job measures its trials by
        number = len(setting.sizes) * setting.num_rates
        money = SWEEP_SHARE * 0.6 * setting.budget / number
        dearest = max(self.prices(name).window for name in setting.sizes)
        share = EVALUATION_SHARE * money / (EVALUATIONS * dearest * setting.batch_size)
        self.eval_iters = max(1, math.floor(share))
        self.eval_windows = min(self.eval_iters * setting.batch_size, len(self.validation))

    def prices(self, size: str) -> Prices:
        batch_size = self.setting.batch_size
        rows = warm_up_rows(self.config("base", size, 1e-3, 1), WORKER.world_size, batch_size)
        return prices_in_flops(self.sizes[size], batch_size, rows)

    def measuring(self, size: str) -> float:
        """FLOPs of measuring a model on the whole validation split."""
        return len(self.validation) * self.prices(size).window

    def iters(self, size: str, money: float, evaluations: int = 2) -> int:
        """How long a run with so many evaluations is that costs so much."""
        return self.prices(size).iters(money, evaluations * self.eval_windows, 0)

    def charge(self, kind: str, flops: float) -> None:
        if flops > self.left:
            raise OutOfMoney
        self.left -= flops

    def config(self, name: str, size: str, rate: float, iters: int, eval_interval: int = 0) -> TrainConfig:
        shape = self.sizes[size].shape
        return TrainConfig(
            data_dir=self.setting.data_dir,
            checkpoint_dir=str(self.folder),
            log_dir=str(self.folder / "logs"),
            run_name=name,
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            n_embd=shape.n_embd,
            context_size=self.setting.context_size,
            batch_size=self.setting.batch_size,
            num_workers=1,
            learning_rate=rate,
            max_iters=iters,
            eval_interval=eval_interval or iters,
            eval_iters=getattr(self, "eval_iters", 1),
            save_interval=iters,
            keep_checkpoints=1,
            seed=self.seed,
            tensorboard=False,
            wandb="off",
        )

    def run(self, name: str, size: str, rate: float, iters: int) -> tuple[float, str | None]:
        """Train from scratch. Returns bits per byte (infinite when it diverged) and the checkpoint."""
        config = make_train_plan(self.config(name, size, rate, iters)).config
        self.trials += 1
        try:
            result = Trainer(config, WORKER, Reporter(say=lambda line: None, charge=self.charge)).run()
        except StoppedTogether:
            return math.inf, None
        assert result["last_evaluation"] is not None
        return finite(result["last_evaluation"]["bits_per_byte"]), result["checkpoint"]

    def measure(self, size: str, checkpoint: str | None) -> float:
        """Bits per byte over the whole validation split, charged; infinite for a run that diverged."""
        self.charge("evaluation", self.measuring(size))
        if checkpoint is None:
            return math.inf
        model = load(checkpoint, None, "cpu")[0]
        # As the loop measures, whose runs leave illegal tokens out.
        return finite(float(evaluate_loss(model, self.validation, masks=self.store.masks)["bits_per_byte"]))

    def result(self, bits_per_byte: float, size: str, rate: float) -> dict[str, Any]:
        return {
            "bits_per_byte": bits_per_byte,
            "size": size,
            "learning_rate": rate,
            "budget": self.setting.budget,
            "spent": self.setting.budget - self.left,
            "trials": self.trials,
        }

    def rates(self, size: str) -> tuple[float, float]:
        """Lowest and highest learning rate that is searched."""
        if not self.setting.rule_range:
            return GUIDE_RATES
        span = SweepConfig(budget_flops=1.0).rate_span
        return rule_rate(self.sizes[size]) / span, rule_rate(self.sizes[size]) * span

    def draw(self, rng: random.Random) -> tuple[str, float]:
        """A size, and a rate log-uniform in its range."""
        size = rng.choice(self.setting.sizes)
        low, high = self.rates(size)
        return size, rounded(math.exp(rng.uniform(math.log(low), math.log(high))))


def finite(bits_per_byte: float) -> float:
    return bits_per_byte if math.isfinite(bits_per_byte) else math.inf


def run_strategy(strategy: str, setting: Setting, seed: int, folder: Path) -> dict[str, Any]:
    """Spend the budget one way."""
    if strategy == "job":
        return job(setting, seed, folder)
    shutil.rmtree(folder, ignore_errors=True)
    strategies: dict[str, Callable[[Bench], dict[str, Any]]] = {
        "random": random_search,
        "asha": asha,
        "hyperband": hyperband,
        "tpe": tpe,
        "rule": lambda bench: by_rule(bench, setting.fixed_size),
        "rule-small": lambda bench: by_rule(bench, setting.sizes[0]),
        "fixed": lambda bench: final_run(bench, setting.fixed_size, FIXED_RATE),
    }
    return strategies[strategy](Bench(setting, seed, folder))


# --------------------------------------------------------------------------------------------------------
# The strategies


def job(setting: Setting, seed: int, folder: Path) -> dict[str, Any]:
    """The job's own code, but for Ray: its sweep says what is next, its meter charges, its judge stops."""
    from nanochat_tct.tuning import tune

    config = SweepConfig(
        budget_flops=setting.budget,
        sweep_share=SWEEP_SHARE,
        sizes=list(setting.sizes),
        num_rates=setting.num_rates,
        output=str(folder),
        concurrency=1,
        train=TrainConfig(
            data_dir=setting.data_dir,
            context_size=setting.context_size,
            batch_size=setting.batch_size,
            num_workers=1,
            seed=seed,
            tensorboard=False,
            wandb="off",
        ),
    )
    sweep, folder = tune.prepare(config)
    run_alone(sweep)
    sweep.ledger.refresh()
    tune.write_results(sweep)
    final = next(account for account in sweep.ledger.accounts.values() if account.purpose == "final")
    choice = sweep.ledger.notes["choice"]
    whole = final.result.get("whole_split")
    return {
        "bits_per_byte": final.result["bits_per_byte"] if whole is None else whole,
        "size": choice["size"],
        "learning_rate": choice["learning_rate"],
        "budget": setting.budget,
        "spent": sweep.ledger.spent,
        "trials": len(sweep.ledger.accounts),
        "predicted": choice["predicted"],
    }


def random_search(bench: Bench) -> dict[str, Any]:
    """Trials drawn from the ranges; the best one's setting gets the rest."""
    rng = random.Random(f"random {bench.seed}")
    return search_then_train(bench, lambda: bench.draw(rng), lambda bits: None)


def tpe(bench: Bench) -> dict[str, Any]:
    """Trials that Optuna asks for; the best one's setting gets the rest."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=bench.seed))
    asked: list[Any] = []

    def ask() -> tuple[str, float]:
        trial = study.ask()
        asked.append(trial)
        size = trial.suggest_categorical("size", bench.setting.sizes)
        low, high = bench.rates(size)
        # One parameter for all sizes: where in the range
        place = trial.suggest_float("place", 0.0, 1.0)
        return size, rounded(low * (high / low) ** place)

    def tell(bits: float) -> None:
        study.tell(asked[-1], min(bits, 100.0))

    return search_then_train(bench, ask, tell)


def search_then_train(
    bench: Bench, ask: Callable[[], tuple[str, float]], tell: Callable[[float], None]
) -> dict[str, Any]:
    """The same split as the job's: trials of equal cost, then one run of the best for all that is left."""
    setting = bench.setting
    number = len(setting.sizes) * setting.num_rates
    best: tuple[float, str, float] = (math.inf, setting.sizes[0], FIXED_RATE)
    for index in range(number):
        size, rate = ask()
        iters = bench.iters(size, SWEEP_SHARE * setting.budget / number)
        bits, _ = bench.run(f"trial-{index}", size, rate, iters)
        tell(bits)
        best = min(best, (bits, size, rate))
    return final_run(bench, *best[1:])


def by_rule(bench: Bench, size: str) -> dict[str, Any]:
    """One run, as `train` does it without being given a learning rate."""
    return final_run(bench, size, rule_rate(bench.sizes[size]))


def final_run(bench: Bench, size: str, rate: float) -> dict[str, Any]:
    """All that is left for one run."""
    iters = bench.iters(size, bench.left - bench.measuring(size))
    _, checkpoint = bench.run("final", size, rate, iters)
    return bench.result(bench.measure(size, checkpoint), size, rate)


def asha(bench: Bench) -> dict[str, Any]:
    """Ray's scheduler decides after each step of each sample which ones go on."""
    from ray.tune.schedulers import ASHAScheduler, TrialScheduler

    scheduler = ASHAScheduler(
        metric="bits_per_byte",
        mode="min",
        time_attr="step",
        max_t=ASHA_STEPS,
        grace_period=1,
        reduction_factor=2,
    )
    rng = random.Random(f"asha {bench.seed}")
    money = bench.setting.budget - max(map(bench.measuring, bench.setting.sizes))
    bench.left = money
    samples: list[SteppedRun] = []

    def add() -> "SteppedRun":
        size, rate = bench.draw(rng)
        sample = SteppedRun(bench, f"sample-{len(samples)}", size, rate, money / ASHA_UNITS, ASHA_STEPS)
        samples.append(sample)
        scheduler.on_trial_add(None, SimpleNamespace(trial_id=sample.name))  # type: ignore[arg-type]
        return sample

    alive = [add() for _ in range(ASHA_SAMPLES)]
    while alive or bench.left > money / ASHA_UNITS:
        if not alive:
            alive = [add()]
        for sample in list(alive):
            numbers = sample.step()
            if numbers is None:  # ended, diverged, or no money is left
                alive.remove(sample)
                continue
            trial: Any = SimpleNamespace(trial_id=sample.name)
            decision = scheduler.on_trial_result(None, trial, numbers)  # type: ignore[arg-type]
            if decision == TrialScheduler.STOP:
                sample.stop()
                alive.remove(sample)
    best = min(samples, key=lambda sample: sample.bits_per_byte)
    bench.trials = len(samples)
    bench.left += bench.setting.budget - money
    return bench.result(bench.measure(best.size, best.checkpoint), best.size, best.rate)


def hyperband(bench: Bench) -> dict[str, Any]:
    """Trials in brackets, of which the better half goes on; the best one's setting gets the rest."""
    rng = random.Random(f"hyperband {bench.seed}")
    money = SWEEP_SHARE * bench.setting.budget / HYPERBAND_UNITS
    samples: list[SteppedRun] = []
    for number, steps in HYPERBAND_BRACKETS:
        alive = []
        for _ in range(number):
            alive.append(
                SteppedRun(bench, f"sample-{len(samples)}", *bench.draw(rng), money, HYPERBAND_STEPS)
            )
            samples.append(alive[-1])
        done = 0
        while alive:
            for sample in list(alive):
                if any(sample.step() is None for _ in range(steps - done)):  # diverged
                    alive.remove(sample)
            alive.sort(key=lambda sample: sample.bits_per_byte)
            kept = [] if steps == HYPERBAND_STEPS else alive[: max(1, len(alive) // 2)]
            for sample in alive[len(kept) :]:
                sample.stop()
            alive, done, steps = kept, steps, 2 * steps
    best = min(samples, key=lambda sample: sample.bits_per_byte)
    bench.trials = len(samples)
    return final_run(bench, best.size, best.rate)


class SteppedRun:
    """A run in a thread of its own that waits after each step until it is told to go on; none runs beside it."""

    def __init__(self, bench: Bench, name: str, size: str, rate: float, money: float, steps: int) -> None:
        """Args:
        money: FLOPs of a step.
        steps: length of the run, at whose end the learning rate is lowest.
        """
        self.name, self.size, self.rate = name, size, rate
        self.bits_per_byte = math.inf
        self.checkpoint: str | None = None
        step_iters = max(1, bench.iters(size, money, evaluations=1))
        settings = bench.config(name, size, rate, steps * step_iters, step_iters)
        config = dataclasses.replace(make_train_plan(settings).config, save_interval=step_iters)
        self.step_iters = step_iters
        self.reports: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.orders: queue.Queue[str | None] = queue.Queue()
        self.order: str | None = None
        reporter = Reporter(
            say=lambda line: None,
            report=self._report,
            stop_reason=lambda: self.order,
            charge=bench.charge,
        )
        self.thread = threading.Thread(target=self._run, args=(config, reporter), daemon=True)
        self.thread.start()

    def step(self) -> dict[str, Any] | None:
        """Train for a step. Returns its numbers, None when the run has ended."""
        self.orders.put(None)
        numbers = self.reports.get()
        if numbers is not None:
            self.bits_per_byte = finite(numbers["bits_per_byte"])
        return numbers

    def stop(self) -> None:
        """End the run."""
        self.orders.put("stopped by the scheduler")
        self.reports.get()
        self.thread.join()

    def _run(self, config: TrainConfig, reporter: Reporter) -> None:
        self.order = self.orders.get()
        try:
            self.checkpoint = Trainer(config, WORKER, reporter).run()["checkpoint"]
        except (StoppedTogether, OutOfMoney):
            latest = latest_checkpoint(Path(config.checkpoint_dir) / config.run_name)
            self.checkpoint = None if latest is None else str(latest)
        self.reports.put(None)

    def _report(self, numbers: dict[str, Any]) -> None:
        if numbers["iter"] > 0:
            self.reports.put({"step": numbers["iter"] // self.step_iters, **numbers})
            self.order = self.orders.get()


if __name__ == "__main__":
    sys.exit(main())
