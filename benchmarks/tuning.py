"""Which way to spend a budget finds the best model? Bits per byte of the whole validation split at equal FLOPs.

    nanochat-tct train-tokenizer --input FOLDER --vocab-size 1024 --output vocabulary.json
    nanochat-tct prepare --input FOLDER --tokenizer vocabulary.json --train-split 0.98 --output STORE
    python benchmarks/tuning.py --data-dir STORE --tokenizer vocabulary.json

Three sizes whose cost a token differs by a factor of 17, on CPU. The vocabulary is small, so that the sizes differ in
their layers and not only in their embeddings. Every strategy gets the same budget, sizes, range of learning rates,
data, batch and training code. Everything that a strategy does is charged: warm-up, trials, their evaluations, the
final run. Only the last measurement, which compares the strategies, is free.

- job: what `nanochat-tct tune` does, in this process instead of on Ray, one trial at a time;
- rule: no search: the learning rate 0.96 / width that `train` takes by itself, for the size that can see closest to
  20 tokens a parameter (Hoffmann et al., 2022), for the whole budget;
- random: 30% of the budget for random search, as many trials as the job begins with; the rest trains the best;
- tpe: as random, with Optuna's TPE, which draws the first five trials at random, as `tune --search optuna` has it
  (with Optuna's default of ten it would be random search here);
- asha: Ray's ASHAScheduler as its guide shows it: 10 samples of 10 steps, grace period 1, reduction factor 2; a step is
  as many iters for every size; more samples while the budget lasts; the best sample is the result;
- asha-flops: the same scheduler for 30% of the budget, and a step costs the same FLOPs for every size; the rest trains
  the best.

The learning rates of the searches are log-uniform in the job's own range, so that what differs is how the budget is
spent, not who knows better where to look. All strategies of a seed share initial weights and the order of windows,
so the seeds are compared in pairs.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed
from benchmarks.small_runs import FinishedRuns
from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.windows import Windows
from nanochat_tct.errors import UserError, exit_code
from nanochat_tct.evaluation.evaluate import evaluate_loss
from nanochat_tct.generation.generate import load
from nanochat_tct.model.checkpoint import latest_checkpoint
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.training.config import ResolvedConfig, TrainConfig, resolve, warm_up_rows
from nanochat_tct.training.distributed import StoppedTogether, Worker
from nanochat_tct.training.plan import make_plan as make_train_plan
from nanochat_tct.training.trainer import Reporter, Trainer
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.records import Choice
from nanochat_tct.tuning.runner import run_alone
from nanochat_tct.tuning.space import Size, make_size, rounded

SEARCH_SHARE = 0.3  # of the budget, the job's default as well
TOKENS_PER_PARAMETER = 20
TPE_RANDOM_TRIALS = 5
EVALUATION_WINDOWS = 32  # of one evaluation of a trial
ASHA_SAMPLES, ASHA_STEPS = 10, 10
ASHA_UNITS = 36  # about as many steps as all samples take together
WORKER = Worker(0, 1, torch.device("cpu"))


class OutOfMoney(Exception):
    """A strategy asked for more than its budget."""


@dataclass(frozen=True)
class Setting:
    """What all strategies share."""

    data_dir: str
    tokenizer: str
    budget: float  # FLOPs
    sizes: tuple[str, ...]
    num_rates: int  # of the job, for each size, at first
    context_size: int
    batch_size: int

    def key(self) -> str:
        """Names the setting in the cache; a store or a vocabulary that was moved keeps its name."""
        store = TokenStore.open(self.data_dir, verify=False)
        values = {**dataclasses.asdict(self), "data_dir": store.fingerprint, "tokenizer": ""}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="a store that `prepare` wrote")
    parser.add_argument("--tokenizer", default="builtin", help="of the store")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--seeds", default="0,1,2,3,4", help="of weights, order of windows, draws")
    parser.add_argument("--budget-flops", type=float, default=1.7e12)
    parser.add_argument("--sizes", default="1x32,2x64,2x160", help="layers x width")
    parser.add_argument("--num-rates", type=int, default=3)
    parser.add_argument("--context-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=4, help="windows")
    parser.add_argument("--cache", default="runs/tuning", help="folder of finished runs")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # the job asks for it
    torch.set_num_threads(1)
    return exit_code(lambda: compare(arguments))


def compare(arguments: argparse.Namespace) -> None:
    """Make the runs that are not in the cache yet, and print the table of all that are."""
    strategies = arguments.strategies.split(",")
    if not set(strategies) <= set(STRATEGIES):
        raise UserError(f"--strategies {arguments.strategies}: each is one of {', '.join(STRATEGIES)}")
    setting = Setting(
        str(Path(arguments.data_dir).resolve()),
        arguments.tokenizer,
        arguments.budget_flops,
        tuple(arguments.sizes.split(",")),
        arguments.num_rates,
        arguments.context_size,
        arguments.batch_size,
    )
    cache, settings = Path(arguments.cache).resolve(), {"key": setting.key()}
    finished = FinishedRuns(cache / "results.jsonl")
    for seed, strategy in itertools.product(map(int, arguments.seeds.split(",")), strategies):
        if finished.has(strategy, seed, settings):
            continue
        started, cpu = time.monotonic(), time.process_time()
        folder = cache / f"{settings['key']}-{strategy}-{seed}"
        run = STRATEGIES[strategy](setting, seed, folder)
        run |= {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu}
        finished.add(strategy, seed, settings, run)
        if strategy != "job":
            shutil.rmtree(folder, ignore_errors=True)
        print(
            f"  {run['size']} at {run['learning_rate']:.3g}, {run['spent'] / setting.budget:.1%} of the budget, "
            f"{run['trials']} runs, {run['seconds']:.0f} s ({run['cpu_seconds']:.0f} s of CPU)",
            flush=True,
        )
    print(table({(run["name"], run["seed"]): run for run in finished.runs if run["settings"] == settings}))


# --------------------------------------------------------------------------------------------------------
# The table


def table(runs: dict[tuple[str, int], dict[str, Any]]) -> str:
    """A row for each strategy, in Markdown; each is compared with the job on the seeds that both have."""
    lines = [
        "| strategy | seeds | bits per byte, mean | deviation | lowest to highest | above the job | p | chosen |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    bits = {
        name: {seed: run["bits_per_byte"] for (strategy, seed), run in runs.items() if strategy == name}
        for name in STRATEGIES
    }
    for name in filter(bits.get, STRATEGIES):
        values = list(bits[name].values())
        deviation = f"{statistics.stdev(values):.4f}" if len(values) > 1 else ""
        both = bits[name].keys() & bits["job"].keys()
        above, p = "", ""
        if name != "job" and len(both) > 1:
            ours, theirs = ([bits[each][seed] for seed in both] for each in ("job", name))
            above = f"{statistics.mean(theirs) / statistics.mean(ours) - 1:+.2%}"
            p = f"{paired_t_test(ours, theirs):.3f}"
        chosen = [
            f"{runs[name, seed]['size']} {runs[name, seed]['learning_rate']:.2g}"
            for seed in sorted(bits[name])
        ]
        lines.append(
            f"| {name} | {len(values)} | {statistics.mean(values):.4f} | {deviation} | "
            f"{min(values):.4f} to {max(values):.4f} | {above} | {p} | {', '.join(chosen)} |"
        )
    lines += ["", "p: paired t-test over the seeds that a strategy shares with the job, two-sided."]
    return "\n".join(lines)


def paired_t_test(first: Sequence[float], second: Sequence[float]) -> float:
    """The two-sided p-value of the hypothesis that pairs of measurements do not differ in the mean."""
    differences = np.subtract(first, second)
    freedom = len(differences) - 1
    error = differences.std(ddof=1) / math.sqrt(len(differences))
    if error == 0:
        return float(differences.mean() == 0)
    # With t = sqrt(freedom) tan(angle) Student's density becomes cos(angle) ** (freedom - 1).
    angle = math.atan(abs(differences.mean()) / error / math.sqrt(freedom))
    beyond, all_angles = np.linspace(angle, math.pi / 2, 10_001), np.linspace(0, math.pi / 2, 10_001)
    return float(
        np.trapezoid(np.cos(beyond) ** (freedom - 1), beyond)
        / np.trapezoid(np.cos(all_angles) ** (freedom - 1), all_angles)
    )


# --------------------------------------------------------------------------------------------------------
# What strategies are made of


class Bench:
    """One strategy's budget, and the runs that it spends it on."""

    def __init__(self, setting: Setting, seed: int, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.setting, self.seed, self.folder = setting, seed, folder
        self.left, self.trials = setting.budget, 0
        self.vocab_size = load_tokenizer(setting.tokenizer).vocab_size()
        base = TrainConfig(context_size=setting.context_size)
        self.sizes: dict[str, Size] = {name: make_size(name, base, self.vocab_size) for name in setting.sizes}
        self.eval_iters = math.ceil(EVALUATION_WINDOWS / setting.batch_size)

    def iters(self, size: str, money: float, evaluations: int = 2) -> int:
        """How long a run with so many evaluations is that costs so much; at least one iter."""
        row, batch_size = self.sizes[size].row_flops, self.setting.batch_size
        config = resolve(self.config("base", size, 1e-3, 1), self.vocab_size)
        warm_up = warm_up_rows(config, WORKER.world_size, batch_size)
        evaluation = self.eval_iters * batch_size / 3  # forward only: a third of the FLOPs
        return max(1, math.floor((money / row - warm_up - evaluations * evaluation) / batch_size))

    def charge(self, kind: str, flops: float) -> None:
        if flops > self.left:
            raise OutOfMoney
        self.left -= flops

    def config(self, name: str, size: str, rate: float, iters: int, interval: int = 0) -> TrainConfig:
        """Args:
        interval: iters between evaluations and between checkpoints; 0: only at the end.
        """
        shape = self.sizes[size].shape
        return TrainConfig(
            data_dir=self.setting.data_dir,
            tokenizer=self.setting.tokenizer,
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
            eval_interval=interval or iters,
            eval_iters=self.eval_iters,
            save_interval=interval or iters,
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

    def draw(self, rng: random.Random) -> tuple[str, float]:
        """A size, and a rate log-uniform in the job's range."""
        size = rng.choice(self.setting.sizes)
        return size, self.rate(size, rng.uniform(-1, 1))

    def rate(self, size: str, position: float) -> float:
        """The learning rate at a position in the job's range, from -1 to 1."""
        span = SweepConfig(budget_flops=1.0).rate_span
        return rounded(self.sizes[size].rule_rate * span**position)

    def final_run(self, size: str, rate: float) -> dict[str, Any]:
        """All that is left for one run."""
        _, checkpoint = self.run("final", size, rate, self.iters(size, self.left))
        return self.result(checkpoint, size, rate)

    def result(self, checkpoint: str | None, size: str, rate: float) -> dict[str, Any]:
        return {
            "bits_per_byte": measure(self.setting, checkpoint),
            "size": size,
            "learning_rate": rate,
            "spent": self.setting.budget - self.left,
            "trials": self.trials,
        }


def measure(setting: Setting, checkpoint: str | None) -> float:
    """Bits per byte over the whole validation split; infinite for a run that diverged."""
    if checkpoint is None:
        return math.inf
    store = TokenStore.open(setting.data_dir, verify=False)
    windows = Windows(store, "val", setting.context_size)
    model = load(checkpoint, None, "cpu")[0]
    return finite(float(evaluate_loss(model, windows, masks=store.masks)["bits_per_byte"]))


def finite(bits_per_byte: float) -> float:
    return bits_per_byte if math.isfinite(bits_per_byte) else math.inf


# --------------------------------------------------------------------------------------------------------
# The strategies


def job(setting: Setting, seed: int, folder: Path) -> dict[str, Any]:
    """The job's own code without Ray: its sweep says what is next, its meter charges, its judge stops."""
    from nanochat_tct.tuning import tune

    config = SweepConfig(
        budget_flops=setting.budget,
        sizes=list(setting.sizes),
        num_rates=setting.num_rates,
        output=str(folder),
        concurrency=1,
        train=TrainConfig(
            data_dir=setting.data_dir,
            tokenizer=setting.tokenizer,
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
    choice = sweep.ledger.latest(Choice)
    assert choice is not None
    return {
        "bits_per_byte": measure(setting, final.result["checkpoint"]),
        "size": choice.size,
        "learning_rate": choice.learning_rate,
        "spent": sweep.ledger.spent,
        "trials": len(sweep.ledger.accounts),
        "predicted": choice.predicted,
    }


def rule(setting: Setting, seed: int, folder: Path) -> dict[str, Any]:
    """One run, as `train` does it without being given a learning rate."""
    bench = Bench(setting, seed, folder)

    def distance(size: str) -> float:
        tokens = bench.iters(size, bench.left) * setting.batch_size * setting.context_size
        return abs(math.log(tokens / bench.sizes[size].parameters / TOKENS_PER_PARAMETER))

    size = min(setting.sizes, key=distance)
    return bench.final_run(size, bench.sizes[size].rule_rate)


def random_search(setting: Setting, seed: int, folder: Path) -> dict[str, Any]:
    """Trials drawn from the ranges; the best one's setting gets the rest."""
    bench, rng = Bench(setting, seed, folder), random.Random(f"random {seed}")
    return search_then_train(bench, lambda: bench.draw(rng), lambda bits: None)


def tpe(setting: Setting, seed: int, folder: Path) -> dict[str, Any]:
    """Trials that Optuna asks for; the best one's setting gets the rest."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    bench = Bench(setting, seed, folder)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=TPE_RANDOM_TRIALS)
    study = optuna.create_study(sampler=sampler)
    asked: list[Any] = []

    def ask() -> tuple[str, float]:
        asked.append(study.ask())
        size = asked[-1].suggest_categorical("size", setting.sizes)
        # One parameter for all sizes, as the best rate lies at about the same position for each.
        return size, bench.rate(size, asked[-1].suggest_float("position", -1.0, 1.0))

    return search_then_train(bench, ask, lambda bits: study.tell(asked[-1], min(bits, 100.0)))


def search_then_train(
    bench: Bench, ask: Callable[[], tuple[str, float]], tell: Callable[[float], object]
) -> dict[str, Any]:
    """Trials of equal cost for the job's share, then one run of the best for all that is left."""
    setting = bench.setting
    number = len(setting.sizes) * setting.num_rates
    trials = []
    for index in range(number):
        size, rate = ask()
        iters = bench.iters(size, SEARCH_SHARE * setting.budget / number)
        bits, _ = bench.run(f"trial-{index}", size, rate, iters)
        tell(bits)
        trials.append((bits, size, rate))
    return bench.final_run(*min(trials)[1:])


def asha(setting: Setting, seed: int, folder: Path) -> dict[str, Any]:
    """All of the budget for ASHA, whose resource is iters; the best sample is the result."""
    bench = Bench(setting, seed, folder)
    mean_row = statistics.mean(size.row_flops for size in bench.sizes.values())
    iters = math.ceil(setting.budget / ASHA_UNITS / mean_row / setting.batch_size)
    step_iters = dict.fromkeys(setting.sizes, iters)
    best = run_asha(bench, setting.budget, step_iters)
    return bench.result(best.checkpoint, best.size, best.rate)


def asha_in_flops(setting: Setting, seed: int, folder: Path) -> dict[str, Any]:
    """The job's share for ASHA, whose resource is FLOPs; the best sample's setting gets the rest."""
    bench = Bench(setting, seed, folder)
    money = SEARCH_SHARE * setting.budget
    best = run_asha(
        bench, money, {size: bench.iters(size, money / ASHA_UNITS, evaluations=1) for size in setting.sizes}
    )
    return bench.final_run(best.size, best.rate)


def run_asha(bench: Bench, money: float, step_iters: dict[str, int]) -> "SteppedRun":
    """Samples in turn, a step each; Ray's scheduler decides which go on. Returns the best one.

    Args:
        money: FLOPs; new samples begin while a full step of the dearest size is left.
        step_iters: length of a step, by size.
    """
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
    kept = bench.left - money
    bench.left = money
    samples: list[SteppedRun] = []

    def add() -> "SteppedRun":
        size, rate = bench.draw(rng)
        sample = SteppedRun(bench, f"sample-{len(samples)}", size, rate, step_iters[size])
        samples.append(sample)
        scheduler.on_trial_add(None, SimpleNamespace(trial_id=sample.name))  # type: ignore[arg-type]
        return sample

    rows = {size: step_iters[size] * bench.setting.batch_size for size in step_iters}
    step_price = max(rows[size] * bench.sizes[size].row_flops for size in step_iters)
    alive = [add() for _ in range(ASHA_SAMPLES)]
    while alive or bench.left > step_price:
        alive = alive or [add()]
        for sample in list(alive):
            metrics = sample.step()
            if metrics is None:  # it ended, diverged, or no money is left
                alive.remove(sample)
                continue
            trial: Any = SimpleNamespace(trial_id=sample.name)
            decision = scheduler.on_trial_result(None, trial, metrics)  # type: ignore[arg-type]
            if decision == TrialScheduler.STOP:
                sample.stop()
                alive.remove(sample)
    bench.trials = len(samples)
    bench.left += kept
    return min(samples, key=lambda sample: sample.bits_per_byte)


class SteppedRun:
    """A run in a thread of its own that waits after each step for the order to continue; one runs at a time."""

    def __init__(self, bench: Bench, name: str, size: str, rate: float, step_iters: int) -> None:
        """The learning rate of the run decays over ASHA_STEPS steps."""
        self.name, self.size, self.rate, self.step_iters = name, size, rate, step_iters
        self.bits_per_byte = math.inf
        self.checkpoint: str | None = None
        settings = bench.config(name, size, rate, ASHA_STEPS * step_iters, step_iters)
        config = make_train_plan(settings).config
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
        """Train for a step. Returns its metrics, None when the run has ended."""
        self.orders.put(None)
        metrics = self.reports.get()
        if metrics is not None:
            self.bits_per_byte = finite(metrics["bits_per_byte"])
        return metrics

    def stop(self) -> None:
        """End the run."""
        self.orders.put("stopped by the scheduler")
        self.reports.get()
        self.thread.join()

    def _run(self, config: ResolvedConfig, reporter: Reporter) -> None:
        self.order = self.orders.get()
        try:
            self.checkpoint = Trainer(config, WORKER, reporter).run()["checkpoint"]
        except (StoppedTogether, OutOfMoney):
            latest = latest_checkpoint(Path(config.checkpoint_dir) / config.run_name)
            self.checkpoint = None if latest is None else str(latest)
        self.reports.put(None)

    def _report(self, metrics: dict[str, Any]) -> None:
        if metrics["iter"] > 0:
            self.reports.put({"step": metrics["iter"] // self.step_iters, **metrics})
            self.order = self.orders.get()


STRATEGIES: dict[str, Callable[[Setting, int, Path], dict[str, Any]]] = {
    "job": job,
    "rule": rule,
    "random": random_search,
    "tpe": tpe,
    "asha": asha,
    "asha-flops": asha_in_flops,
}

if __name__ == "__main__":
    sys.exit(main())
