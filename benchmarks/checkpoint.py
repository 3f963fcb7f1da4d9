"""What saving costs training: the time it holds the loop up, and what the writing beside it slows down.

    python benchmarks/checkpoint.py --preset small --save-interval 500

On the processor or GPU at hand, with one worker and random windows. Compared with writing in the loop.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from nanochat_tct.data.windows import MaskedRows
from nanochat_tct.model.gpt import GPT
from nanochat_tct.training.config import TrainConfig, resolve
from nanochat_tct.training.distributed import Worker, full_state
from nanochat_tct.training.micro_batch import MicroSteps
from nanochat_tct.training.optim import make_optimizers, step_if
from nanochat_tct.training.saver import BackgroundSaver

VOCABULARY, PAD = 8192, 8191


def seconds_of(work: Callable[[], object]) -> float:
    """How long it takes, the GPU's part included."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure, and print a few lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="small")
    parser.add_argument("--batch-size", type=int, default=8, help="windows of an iter")
    parser.add_argument("--save-interval", type=int, default=500)
    parser.add_argument("--iters", type=int, default=10, help="timed without saving")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = resolve(
        TrainConfig(preset=given.preset, batch_size=given.batch_size, use_gpu=device.type == "cuda"),
        VOCABULARY,
    )
    worker = Worker(0, 1, device)
    model = GPT(config.model()).to(device)
    optimizers = make_optimizers(model, config, None)
    micro = MicroSteps(model, config, worker, given.batch_size, PAD, given.batch_size)
    shape = (given.batch_size, config.model().context_size + 1)
    rows = np.random.default_rng(0).integers(0, VOCABULARY - 1, shape)
    rows[:, 0] = VOCABULARY  # a position token

    def one_iter() -> None:
        outcome = micro.gradients(micro.load(MaskedRows(rows, None)))
        step_if(outcome.is_good, optimizers)
        outcome.wait()

    one_iter()
    usual = float(np.median([seconds_of(one_iter) for _ in range(given.iters)]))
    with tempfile.TemporaryDirectory() as folder:
        saver = BackgroundSaver(folder)

        def save(step: int) -> None:
            weights, state = full_state(model, optimizers)
            saver.save(Path(folder), weights, {"optimizer": state, "random": []}, {"step": step}, 1)

        in_loop = seconds_of(lambda: (save(1), saver.wait()))
        held_up = seconds_of(lambda: save(2))
        beside: list[float] = []
        while saver.is_busy:
            beside.append(seconds_of(one_iter))
        saver.wait()
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        saver.close()
    slowed = sum(beside) - len(beside) * usual
    interval = given.save_interval
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"device: {where}, {torch.get_num_threads()} threads")
    print(f"iter: {1000 * usual:.0f} ms, {given.batch_size} windows of {config.model().context_size}")
    print(f"checkpoint: {size / 1e6:.0f} MB; written, checksummed and committed in the loop: {in_loop:.2f} s")
    print(f"beside it: held up {held_up:.3f} s, then {len(beside)} iters {max(0.0, slowed):.2f} s slower")
    for name, cost in (("in the loop", in_loop), ("beside it", held_up + max(0.0, slowed))):
        share = cost / (interval * usual + cost)
        print(f"every {interval} iters, {name}: {100 * share:.2f}% of training time")


if __name__ == "__main__":
    main()
