"""The speed of training, part by part, and compared with other ways to train a model of the same shape.

    python benchmarks/training.py                                  # CPU: demo, baseline, small
    python benchmarks/training.py --device cuda                    # bf16, compiled: small, medium, large

For each preset it prints tokens/s, MFU, memory, and milliseconds of an iter by part, then ratios for each preset of
--compare. The contestants run at the same time and take turns of a few iters, so that other work on the machine affects
all of them equally. A ratio compares two turns of the same round; its median over rounds is printed. On a CPU there is
also the ratio of the CPU times of (the first process of) each contestant, on which other work has much less effect.

    loop      our training loop, one worker, without Ray
    plain     the same model and optimizer in a minimal loop over batches in memory: the lower bound
    nanogpt   a GPT-2 of the same shape in the same minimal loop
    torchrun  our loop on several workers (CPU: two, one core each; CUDA: one a GPU), started by torchrun
    ray       the same, started by Ray Train as `nanochat-tct train` does; left out if Ray is not installed

All train the same global batch in the same micro-batches.
"""

import argparse
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from nanochat_tct.config import read_config_file
from nanochat_tct.data.sampler import WindowSampler
from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.store_writer import write_store
from nanochat_tct.model.accounting import flops_per_token
from nanochat_tct.model.gpt import GPT
from nanochat_tct.model.loss import masks_on
from nanochat_tct.synthetic.synthesize import synthesize
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tracking.tracker import Tracker
from nanochat_tct.training import micro_batch as micro_steps
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.training.distributed import Worker, shard_range
from nanochat_tct.training.micro_batch import MicroSteps
from nanochat_tct.training.optim import make_optimizers, step_if
from nanochat_tct.training.parallel import distribute
from nanochat_tct.training.plan import make_plan, open_windows
from nanochat_tct.training.speed import peak_of
from nanochat_tct.training.token_parts import token_parts
from nanochat_tct.training.trainer import read_ahead

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed
from benchmarks.classical_gpt import ClassicalGPT  # noqa: E402

PARTS = ("input", "forward", "backward", "optimizer", "communication", "logging")
RATIOS = (  # the speed of the first over that of the second, and the bar
    ("loop", "plain", None),
    ("loop", "nanogpt", 1.0),
    ("ray", "torchrun", 0.98),
    ("torchrun", "loop", 1.6),
)
POLL_SECONDS = 0.005
CPU_BATCH_SIZE = 8  # windows of a micro-batch; on CUDA those of the preset's config file


def main() -> int:
    options = parse_options()
    if options.contestant:
        CONTESTANTS[options.contestant](options)
        return 0
    cpu = f"{len(os.sched_getaffinity(0))} cores of {platform.processor() or platform.machine()}"
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {cpu}"
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{time.strftime('%Y-%m-%d')}, {device}, torch {torch.__version__}, load average before: {load}")
    print(f"`{' '.join(['python benchmarks/training.py', *sys.argv[1:]])}`\n", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        options.scratch = scratch
        options.data_dir = options.data_dir or write_synthetic_store(Path(scratch) / "store")
        if options.presets:
            print_parts(options)
        for preset in options.compare:
            print_ratios(options, preset)
    print("load average after: " + ", ".join(f"{value:.1f}" for value in os.getloadavg()))
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--presets", nargs="*", help="measured part by part")
    parser.add_argument("--compare", nargs="*", help="presets whose ratios are measured (CPU: demo)")
    parser.add_argument("--iters", type=int, default=0, help="iters of a turn (CPU: 5, CUDA: 20)")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each contestant")
    parser.add_argument(
        "--batch-size", type=int, default=0, help="windows at a time (CPU: 8, CUDA: as in configs/)"
    )
    parser.add_argument("--data-dir", help="token store; none: synthetic workflows")
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--plain-softmax", action="store_true", help="over illegal tokens too")
    parser.add_argument("--without", nargs="*", default=[], help="contestants to leave out")
    for hidden in ("--contestant", "--preset", "--gate", "--scratch"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    for hidden in ("--index", "--workers"):
        parser.add_argument(hidden, type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    is_cuda = options.device == "cuda"
    if options.presets is None:
        options.presets = ["small", "medium", "large"] if is_cuda else ["demo", "baseline", "small"]
    if options.compare is None:
        options.compare = ["small", "medium", "large"] if is_cuda else ["demo"]
    options.iters = options.iters or (20 if is_cuda else 5)
    return options


def write_synthetic_store(folder: Path) -> str:
    write_store(folder, [synthesize(index, seed=0) for index in range(600)], load_tokenizer())
    return str(folder)


def micro_batch(options: argparse.Namespace) -> int:
    """Windows of a micro-batch."""
    if options.batch_size:
        return int(options.batch_size)
    if options.device == "cpu":
        return CPU_BATCH_SIZE
    return int(preset_file(options)["batch_size"])


def preset_file(options: argparse.Namespace) -> dict[str, Any]:
    return read_config_file(ROOT / "configs" / f"{options.preset}.yaml")


def make_config(options: argparse.Namespace, max_iters: int, name: str) -> TrainConfig:
    """A run of equal iters, without evaluations or checkpoints before its end.

    The global batch is that of the preset's config file on CUDA, and one micro-batch for each of two workers on a CPU.
    """
    at_a_time = micro_batch(options)
    global_batch = 2 * at_a_time
    if options.device == "cuda":
        file = preset_file(options)
        global_batch = int(file["batch_size"] * file["gradient_accumulation"] * file["num_workers"])
    config = TrainConfig(
        preset=options.preset,
        data_dir=options.data_dir,
        max_iters=max_iters,
        batch_size=at_a_time,
        gradient_accumulation=max(1, global_batch // at_a_time // options.workers),
        num_workers=options.workers,
        use_gpu=options.device == "cuda",
        compile=options.device == "cuda",
        optimizer=options.optimizer,
        mask_illegal=not options.plain_softmax,
        eval_interval=10**9,
        save_interval=10**9,
        eval_iters=1,
        log_interval=options.iters,
        checkpoint_dir=f"{options.scratch}/{name}-{options.preset}",
        log_dir=f"{options.scratch}/logs",
        run_name="run",
        wandb="off",
        num_samples=0,
    )
    return make_plan(config).config


def start(options: argparse.Namespace, contestant: str, workers: int, index: int, gate: str) -> Any:
    """Start a process (group) of this script as one contestant, on one core for each worker (CPU)."""
    script = [str(Path(__file__).resolve()), "--contestant", contestant, "--workers", str(workers)]
    if workers > 1 and contestant != "ray":
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
        script = [*launcher, *script]
    names = "device iters rounds batch_size data_dir scratch preset optimizer"
    values = {f"--{name.replace('_', '-')}": getattr(options, name) for name in names.split()}
    flags = [part for flag, value in values.items() if value is not None for part in (flag, str(value))]
    flags += ["--plain-softmax"] * options.plain_softmax
    cores = sorted(os.sched_getaffinity(0))[:workers]
    return subprocess.Popen(
        [sys.executable, *script, *flags, "--index", str(index), "--gate", gate],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        stdout=subprocess.PIPE if contestant == "parts" else subprocess.DEVNULL,
        stderr=open(f"{options.scratch}/{contestant}.err", "wb"),
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if options.device == "cpu" else None,
        text=True,
    )


def fail(options: argparse.Namespace, contestant: str) -> None:
    sys.exit(f"{contestant} failed:\n" + Path(options.scratch, f"{contestant}.err").read_text()[-4000:])


# ---------------------------------------------------------------------------------------------- part by part


def print_parts(options: argparse.Namespace) -> None:
    workers = number_of_workers(options)
    rows = [(preset, count) for preset in options.presets for count in sorted({1, workers})]
    print(
        "| preset | workers | tokens/s | MFU | memory a worker, GiB | ms an iter | "
        + " | ".join(PARTS)
        + " |"
    )
    print("| --- " * (6 + len(PARTS)) + "|")
    for preset, count in rows:
        options.preset = preset
        process = start(options, "parts", count, 0, options.scratch)
        printed, _ = process.communicate()
        if process.returncode:
            fail(options, "parts")
        result = json.loads(printed.splitlines()[-1])
        parts = " | ".join(f"{result['parts'].get(part, 0.0):.2f}" for part in PARTS)
        print(
            f"| {preset} | {count} | {result['tokens_per_second']:,.0f} | {result['mfu']:.1%} | "
            f"{result['memory'] / 2**30:.2f} | {result['ms']:.1f} | {parts} |",
            flush=True,
        )
    print(f"\nMFU is of {result['peak'] / 1e12:.3g} TFLOP/s a worker ({result['peak_source']}).")
    print(
        "Parts are taken with a wait for the device before and after each, so on CUDA they add up to more than"
    )
    print(
        "an iter; input is what the loop waits for it; communication is the exchange of gradients when nothing"
    )
    print("overlaps it, and of sums.\n", flush=True)


def number_of_workers(options: argparse.Namespace) -> int:
    return min(2, len(os.sched_getaffinity(0))) if options.device == "cpu" else torch.cuda.device_count()


def start_worker(options: argparse.Namespace) -> Worker:
    """The worker that torchrun's environment describes, as in nanochat_tct/training/torchrun.py."""
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if options.device == "cpu":
        device = torch.device("cpu")
        torch.set_num_threads(1)
    else:
        torch.set_float32_matmul_precision("high")  # as the loop
    if world_size > 1:
        dist.init_process_group("nccl" if options.device == "cuda" else "gloo")
    return Worker(rank, world_size, device)


class Stopwatch:
    """Seconds of the parts of a step, by name. Off unless a benchmark turns it on: it waits for the device."""

    def __init__(self, device: torch.device, is_on: bool = False) -> None:
        self.device, self.is_on = device, is_on
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside to a part."""
        if not self.is_on:
            yield
            return
        start = self.now()
        yield
        self.seconds[name] += self.now() - start

    def now(self) -> float:
        """Seconds on a clock, when the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def play_parts(options: argparse.Namespace) -> None:
    """Time the parts of the loop separately, and print one line of JSON."""
    worker = start_worker(options)
    config = make_config(options, 10**6, "parts")
    store, tokenizer = TokenStore.open(config.data_dir, verify=False), load_tokenizer()
    windows = open_windows(store, config, "train")
    sampler = WindowSampler(len(windows), 0)
    model = GPT(config.model()).to(worker.device)
    if config.compile:
        model.compile()
    trained = distribute(model, worker, "ddp", config.precision)
    optimizers = make_optimizers(trained, config, token_parts(tokenizer))
    global_batch = config.global_batch
    masks = masks_on(worker.device, store.masks) if config.mask_illegal else None
    micro = MicroSteps(trained, config, worker, global_batch, tokenizer.pad_token(), masks=masks)
    watch = Stopwatch(worker.device)
    micro_steps.record_function = watch.part  # type: ignore[assignment,misc]
    if isinstance(trained, DistributedDataParallel):
        time_exchange(trained, watch)
    tracker = Tracker(Path(options.scratch) / f"parts-{worker.rank}", say=lambda line: None)
    part = shard_range(global_batch, worker)
    batches = read_ahead(
        lambda step: micro.load(
            windows.get_masked(sampler.indices(step, global_batch)[part.start : part.stop])
        ),
        range(10**6),
    )
    batch = next(batches)

    def iterate(count: int) -> float:
        """Seconds an iter."""
        nonlocal batch
        start = watch.now()
        for step in range(count):
            outcome = micro.gradients(batch)
            with watch.part("optimizer"):
                step_if(outcome.is_good, optimizers)
            with watch.part("input"):
                batch = next(batches)
            _, loss, norm, _ = outcome.wait()
            if step % 10 == 9:  # the default log_interval
                with watch.part("logging"):
                    numbers = {"loss": loss, "grad_norm": norm, "lr": 0.0, "tokens_per_second": 0.0}
                    tracker.iteration(
                        {"iter": step, **numbers, "mfu": 0.0, "cost_usd": 0.0, "eta_seconds": 0}
                    )
        return (watch.now() - start) / count

    iterate(3)
    count = 2 * options.iters
    seconds = iterate(count)
    watch.is_on = True
    iterate(count)
    exchanged = watch.seconds.pop("exchange", 0.0)
    watch.seconds["communication"] += exchanged
    watch.seconds["backward"] -= exchanged
    parts = {name: 1000 * total / count for name, total in watch.seconds.items()}
    if worker.is_first:
        print(json.dumps({"parts": parts, **speed_and_memory(config, worker, seconds)}), flush=True)
    os._exit(0)  # ends the thread that reads ahead


def time_exchange(trained: DistributedDataParallel, watch: Stopwatch) -> None:
    """While parts are timed, wait for the exchange of gradients, which otherwise overlaps the backward pass."""

    def exchange(state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        if not watch.is_on:
            return allreduce_hook(None, bucket)  # type: ignore[arg-type]
        with watch.part("exchange"):
            allreduce_hook(None, bucket).wait()  # type: ignore[arg-type]
        result: torch.futures.Future[Tensor] = torch.futures.Future()
        result.set_result(bucket.buffer())
        return result

    trained.register_comm_hook(None, exchange)


def speed_and_memory(config: TrainConfig, worker: Worker, seconds: float) -> dict[str, Any]:
    """The figures of a run whose iters take so many seconds."""
    tokens = config.global_batch * config.model().context_size
    peak = peak_of(worker.device)
    memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_source = "reached by a float32 matrix product"
    if worker.device.type == "cuda":
        memory, peak_source = torch.cuda.max_memory_allocated(), "its data sheet's for dense bf16"
    return {
        "tokens_per_second": tokens / seconds,
        "ms": 1000 * seconds,
        "mfu": tokens / seconds * flops_per_token(config.model()) / peak / worker.world_size,
        "peak": peak,
        "peak_source": peak_source,
        "memory": memory,
    }


# ------------------------------------------------------------------------------------------------- in turns


class Gate:
    """Lets one contestant run at a time. It is a folder, so that unrelated processes can share it."""

    def __init__(self, folder: str, index: int, contestants: int) -> None:
        self.folder, self.index, self.contestants = Path(folder), index, contestants
        self.turn, self.start, self.cpu_start = -1, 0.0, 0.0

    def wait(self) -> None:
        """Wait for this contestant's turn."""
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # the others need the memory
        self.turn += 1
        if self.turn == 0:
            (self.folder / f"ready-{self.index}").touch()
        self._wait_for(self.turn * self.contestants + self.index)
        self.start, self.cpu_start = time.perf_counter(), time.process_time()

    def done(self, iters: int) -> None:
        """Record the seconds of this turn, and start the next one."""
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - self.start) / iters
        cpu_seconds = (time.process_time() - self.cpu_start) / iters
        with open(self.folder / f"seconds-{self.index}", "a") as file:
            file.write(f"{seconds} {cpu_seconds}\n")
        partial = self.folder / f"partial-{self.index}"
        partial.write_text(str(self.turn * self.contestants + self.index + 1))
        os.replace(partial, self.folder / "turn")

    def wait_for_all(self, rounds: int) -> None:
        """Wait until the last turn, so that nothing is torn down while others are timed."""
        self._wait_for(rounds * self.contestants)

    def _wait_for(self, turn: int) -> None:
        while not (self.folder / "turn").exists() or int((self.folder / "turn").read_text()) < turn:
            time.sleep(POLL_SECONDS)


class Lines:
    """Receives the loop's log lines and ends a turn after its last iter; replaces the actor of Ray's launcher too."""

    def __init__(self, gate: Gate, iters: int, rounds: int, actor: Any = None) -> None:
        self.gate, self.iters, self.rounds, self.actor = gate, iters, rounds, actor
        self.put = self

    def __getattr__(self, name: str) -> Any:
        """The actor's other methods."""
        if self.__dict__.get("actor") is None:
            raise AttributeError(name)
        return getattr(self.actor, name)

    def remote(self, line: str | dict[str, Any]) -> None:
        if self.actor is not None:
            self.actor.put.remote(line)
        if isinstance(line, dict) or not line.startswith("iter "):
            return
        done, rest = divmod(int(line.split()[1]), self.iters)
        if rest:
            return
        if done > 1:  # the first turn is for warming up
            self.gate.done(self.iters)
        if done <= self.rounds:
            self.gate.wait()
        else:
            self.gate.wait_for_all(self.rounds)


def print_ratios(options: argparse.Namespace, preset: str) -> None:
    options.preset = preset
    workers = number_of_workers(options)
    contestants = {"loop": 1, "plain": 1, "nanogpt": 1, "torchrun": workers, "ray": workers}
    for name in options.without:
        contestants.pop(name)
    if "ray" in contestants and importlib.util.find_spec("ray") is None:
        contestants.pop("ray")
        print("Ray Train is left out: Ray is not installed")
    if "torchrun" in contestants and workers == 1 and "ray" not in contestants:
        contestants.pop("torchrun")  # the same as the loop
    gate = tempfile.mkdtemp(dir=options.scratch)
    Path(gate, "contestants").write_text(str(len(contestants)))
    processes = {
        name: start(options, name, count, index, gate)
        for index, (name, count) in enumerate(contestants.items())
    }
    try:
        while len(list(Path(gate).glob("ready-*"))) < len(contestants):
            look_after(options, processes)
        Path(gate, "turn").write_text("0")
        while any(process.poll() is None for process in processes.values()):
            look_after(options, processes)
    finally:
        for process in processes.values():
            process.terminate()
            process.wait()
    seconds = {
        name: np.loadtxt(Path(gate, f"seconds-{index}"), ndmin=2).T  # (wall and CPU, rounds)
        for index, name in enumerate(contestants)
    }
    config = make_config(argparse.Namespace(**{**vars(options), "workers": workers}), 1, "shown")
    tokens = config.global_batch * config.model().context_size
    print(f"\n{preset}, {config.global_batch} windows an iter, {micro_batch(options)} at a time, ", end="")
    print(f"{options.rounds} rounds of {options.iters} iters each\n")
    print("| contestant | workers | ms an iter, median | tokens/s |\n| --- | --- | --- | --- |")
    for name, values in seconds.items():
        middle = statistics.median(values[0])
        print(f"| {name} | {contestants[name]} | {1000 * middle:.1f} | {tokens / middle:,.0f} |")
    print(
        "\n| speed of | over that of | ratio, median | quartiles | by CPU time | bar | |\n"
        + "| --- " * 7
        + "|"
    )
    for one, other, bar in RATIOS:
        if one not in seconds or other not in seconds or (bar == 1.6 and workers != 2):
            continue
        low, middle, high = statistics.quantiles(seconds[other][0] / seconds[one][0], n=4)
        is_alike = options.device == "cpu" and contestants[one] == contestants[other]
        by_cpu = f"{np.median(seconds[other][1] / seconds[one][1]):.3f}" if is_alike else ""
        verdict = "" if bar is None else "met" if middle >= bar else "not met"
        print(
            f"| {one} | {other} | {middle:.3f} | {low:.3f} to {high:.3f} | {by_cpu} | {bar or ''} | {verdict} |"
        )
    print(flush=True)


def look_after(options: argparse.Namespace, processes: dict[str, Any]) -> None:
    for name, process in processes.items():
        if process.poll() not in (None, 0):
            fail(options, name)
    time.sleep(0.1)


def open_gate(options: argparse.Namespace) -> Gate:
    return Gate(options.gate, options.index, int(Path(options.gate, "contestants").read_text()))


def play_loop(options: argparse.Namespace) -> None:
    """The real loop, in this process or in one of torchrun's."""
    from nanochat_tct.training.trainer import Reporter, Trainer

    worker = start_worker(options)
    config = make_config(options, options.iters * (options.rounds + 1), options.contestant)
    lines = Lines(open_gate(options), options.iters, options.rounds)
    Trainer(config, worker, Reporter(say=lines.remote)).run()
    if dist.is_initialized():
        dist.destroy_process_group()


def play_ray(options: argparse.Namespace) -> None:
    """The real launcher; the log lines of its workers pass the gate on their way to the terminal."""
    from nanochat_tct.training import ray_driver

    config = make_config(options, options.iters * (options.rounds + 1), "ray")
    to_terminal = ray_driver.driver_channel

    @contextmanager
    def lines_through_gate(max_iters: int) -> Iterator[Any]:
        with to_terminal(max_iters) as actor:
            yield Lines(open_gate(options), options.iters, options.rounds, actor)

    ray_driver.driver_channel = lines_through_gate
    ray_driver.start_ray_to_train()
    ray_driver.train_on_ray(make_plan(config))


def play_plain(options: argparse.Namespace) -> None:
    """A minimal loop: batches are in memory, nothing is logged, the loss is read once a turn."""
    worker = start_worker(options)
    config = make_config(options, 1, options.contestant)
    tokenizer = load_tokenizer()
    model: nn.Module
    model = GPT(config.model()) if options.contestant == "plain" else ClassicalGPT(config.model())
    model.to(worker.device)
    if config.compile:
        model.compile()
    if options.contestant == "plain":
        optimizers = make_optimizers(model, config, token_parts(tokenizer))
    else:
        optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=True)]
    store = TokenStore.open(config.data_dir, verify=False)
    windows = open_windows(store, config, "train")
    sampler = WindowSampler(len(windows), 0)
    masks = masks_on(worker.device, store.masks) if config.mask_illegal else None
    loader = MicroSteps(model, config, worker, config.batch_size, tokenizer.pad_token(), masks=masks)
    batches = [loader.load(windows.get_masked(sampler.indices(n, config.batch_size))) for n in range(16)]
    inputs: list[dict[str, Any]]
    if options.contestant == "plain":
        inputs = [
            dict(zip(("tokens", "targets", "legal"), loader.micro_batch_at(batch, 0), strict=True))
            for batch in batches
        ]
    else:  # the GPT-2 has neither position tokens nor masks
        last = tokenizer.vocab_size() - 1
        inputs = [{"tokens": batch.tokens.clamp(max=last), "targets": batch.targets} for batch in batches]
    turns = config.gradient_accumulation
    gate = open_gate(options)
    step = 0
    for turn in range(options.rounds + 1):
        if turn:
            gate.wait()
        for _ in range(options.iters):
            for _ in range(turns):
                batch = inputs[step % len(inputs)]
                step += 1
                with loader.autocast:
                    loss = model(**batch)
                    if options.contestant == "plain":  # a sum, made a mean
                        loss = loss / batch["tokens"].numel()
                (loss / turns).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        assert np.isfinite(loss.item())
        if turn:
            gate.done(options.iters)
    gate.wait_for_all(options.rounds)


CONTESTANTS = {
    "parts": play_parts,
    "loop": play_loop,
    "torchrun": play_loop,
    "ray": play_ray,
    "plain": play_plain,
    "nanogpt": play_plain,
}


if __name__ == "__main__":
    sys.exit(main())
