"""How many windows at a time: as many as asked for, fewer where memory is short, and the same mathematics."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nanochat_tct.config import parse_arguments, read_config_file
from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.windows import Windows
from nanochat_tct.errors import UserError
from nanochat_tct.model.gpt import GPT
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.training import trainer
from nanochat_tct.training.config import GLOBAL_BATCH, TrainConfig
from nanochat_tct.training.distributed import StoppedTogether, Worker
from nanochat_tct.training.micro_batch import FILE, MicroSteps, out_of_memory
from tests.support.commands import REPOSITORY
from tests.support.models import untrained_model
from tests.support.workers import CPU, checkpoint_of, losses, small_config, train_alone, train_together

pytestmark = pytest.mark.processes


class Full:
    """A module hook on a device that holds so many windows: more raise what CUDA raises."""

    def __init__(self, holds: int, calls_before: int = 0) -> None:
        self.holds, self.calls_before, self.raised = holds, calls_before, 0

    def __call__(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self.calls_before -= 1
        if self.calls_before < 0 and len(output) > self.holds and module.training:
            self.raised += 1
            raise torch.OutOfMemoryError("CUDA out of memory.")


def test_halved_in_the_middle_of_an_iter_the_gradient_is_the_same(data_dir: Path, tmp_path: Path) -> None:
    config = small_config(data_dir, tmp_path, batch_size=7, grad_clip=0.0)
    pad = load_tokenizer().pad_token()
    rows = Windows(TokenStore.open(data_dir), "train", 32).get_masked(np.arange(14))
    said: list[str] = []
    results = []
    for holds in (7, 2):
        model = untrained_model(config.model(), std=0.05)
        # The first micro-step still fits: its gradient is there already when the second runs out.
        model.blocks[1].mlp.register_forward_hook(Full(holds, calls_before=1))
        micro = MicroSteps(model, config, Worker(0, 1, CPU), 14, pad, say=said.append)
        _, loss, norm, _ = micro.gradients(micro.load(rows)).wait()
        results.append((loss, norm, [parameter.grad for parameter in model.parameters()], micro.micro_batch))
    assert [result[3] for result in results] == [7, 2]
    assert said == [
        "out of memory with 7 windows at a time: going on with 4",
        "out of memory with 4 windows at a time: going on with 2",
    ]
    (loss, norm, gradients, _), (halved_loss, halved_norm, halved_gradients, _) = results
    assert halved_loss == pytest.approx(loss, rel=1e-6) and halved_norm == pytest.approx(norm, rel=1e-5)
    for one, other in zip(gradients, halved_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-8)


def full_model(holds: int, calls_before: int = 0) -> type[GPT]:
    class Hooked(GPT):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            self.blocks[0].register_forward_hook(Full(holds, calls_before))

    return Hooked


def test_a_run_finds_what_fits_and_trains_the_same(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = small_config(data_dir, tmp_path / "plain", batch_size=6, max_iters=5)
    train_alone(plain)
    monkeypatch.setattr(trainer, "GPT", full_model(holds=2))
    lines: list[str] = []
    small = small_config(data_dir, tmp_path / "small", batch_size=6, max_iters=5)
    train_alone(small, lines)
    np.testing.assert_allclose(losses(small), losses(plain), rtol=1e-5)
    said = [line for line in lines if "memory" in line]
    assert said == ["batch_size 6: 2 windows at a time, 3 times an iter, as the memory was full with 3"]

    lines.clear()
    auto = small_config(data_dir, tmp_path / "auto", batch_size="auto", max_iters=3, gradient_accumulation=5)
    train_alone(auto, lines)
    assert (
        lines[0] == "--batch-size auto: 2 windows at a time, 8 times an iter, as the memory was full with 4"
    )
    assert checkpoint_of(auto).state["global_batch"] == GLOBAL_BATCH["demo"] == 16

    monkeypatch.setattr(trainer, "GPT", full_model(holds=0))
    with pytest.raises(StoppedTogether, match=r"out of memory with a single window.*checkpoint-activations"):
        train_alone(small_config(data_dir, tmp_path / "none", batch_size=6))


def fill_second_rank(rank: int) -> None:
    """Rank 1 holds two windows, rank 0 four."""
    trainer.GPT = full_model(holds=4 - 2 * rank)  # type: ignore[misc]


def fill_second_rank_later(rank: int) -> None:
    """Rank 1 runs out in its third iter: after the trial, the warm-up and two iters."""
    trainer.GPT = full_model(holds=4 - 2 * rank, calls_before=4)  # type: ignore[misc]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_workers_agree(data_dir: Path, tmp_path: Path, parallel: str) -> None:
    settings = {"batch_size": 4, "num_workers": 2, "max_iters": 4, "parallel": parallel}
    plain = small_config(data_dir, tmp_path / "plain", **settings)
    full = small_config(data_dir, tmp_path / "full", **settings)
    train_together([(plain, None), (full, fill_second_rank)], 2)
    np.testing.assert_allclose(losses(full), losses(plain), rtol=1e-5)

    later = small_config(data_dir, tmp_path / "later", **{**settings, "save_interval": 1})
    with pytest.raises(
        torch.multiprocessing.ProcessRaisedException, match="goes on from its last checkpoint"
    ):
        train_together([(later, fill_second_rank_later)], 2)
    run_dir = tmp_path / "later" / "checkpoints" / "run"
    assert json.loads((run_dir / FILE).read_text()) == {"full_at": 4}
    train_together([(later, fill_second_rank)], 2)  # what Ray Train does, or the same command by hand
    np.testing.assert_allclose(losses(later), losses(plain), rtol=1e-5)


@pytest.mark.parametrize("is_neighbour_full", [True, False])
def test_all_workers_raise_the_error_of_the_one_that_ran_out(
    is_neighbour_full: bool, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others only see that a connection is closed; without a neighbour that ran out, that is the error."""
    config = small_config(data_dir, tmp_path, batch_size=4, max_iters=3)

    class Cut(GPT):
        def forward(self, *arguments: Any, **settings: Any) -> torch.Tensor:
            if self.training and Path(config.run_place, "metrics.jsonl").exists():  # after the warm-up
                if is_neighbour_full:
                    out_of_memory(4, Path(config.run_place))
                raise RuntimeError("Connection closed by peer")
            return super().forward(*arguments, **settings)

    monkeypatch.setattr(trainer, "GPT", Cut)
    expected = "goes on from its last checkpoint with 2" if is_neighbour_full else "closed by peer"
    with pytest.raises(UserError if is_neighbour_full else RuntimeError, match=expected):
        train_alone(config)


def test_what_did_not_fit_is_known_at_the_next_start(data_dir: Path, tmp_path: Path) -> None:
    config = small_config(data_dir, tmp_path, batch_size=8, max_iters=2)
    error = out_of_memory(6, Path(config.checkpoint_dir) / "run")
    assert "with 6 windows" in str(error) and "with 3" in str(error)
    lines: list[str] = []
    train_alone(config, lines)
    assert lines[0] == "batch_size 8: 4 windows at a time, 2 times an iter, as the memory was full with 6"


def test_uneven_shares_train_with_fsdp_too(data_dir: Path, tmp_path: Path) -> None:
    """7 windows on 2 workers, 3 at a time: one has a micro-step more to do, in which the other must join."""
    alone = small_config(data_dir, tmp_path / "alone", batch_size=7, max_iters=3)
    train_alone(alone)
    runs = []
    for parallel in ("ddp", "fsdp"):
        run = small_config(data_dir, tmp_path / parallel, batch_size=7, max_iters=3, parallel=parallel)
        runs.append(run)
        out_of_memory(4, Path(run.checkpoint_dir) / "run")  # so 2 at a time: 3 windows and 4 take 2 turns
    train_together([(run, None) for run in runs], 2)
    for run in runs:
        np.testing.assert_allclose(losses(run), losses(alone), rtol=1e-5)


def test_auto_is_a_word_of_config_file_and_command_line(tmp_path: Path) -> None:
    config = parse_arguments(TrainConfig, ["--batch-size", "auto"], "train", "")
    assert config.batch_size == "auto" and config.global_batch == GLOBAL_BATCH["demo"]
    (tmp_path / "c.yaml").write_text("batch_size: auto\npreset: medium\n")
    config = parse_arguments(TrainConfig, ["--config", str(tmp_path / "c.yaml")], "train", "")
    assert config.batch_size == "auto" and config.global_batch == GLOBAL_BATCH["medium"]
    with pytest.raises(UserError, match="--batch-size must be a whole number or auto, not 'automatic'"):
        parse_arguments(TrainConfig, ["--batch-size", "automatic"], "train", "")


@pytest.mark.parametrize("preset", GLOBAL_BATCH)
def test_the_global_batch_of_auto_is_that_of_the_config_file(preset: str) -> None:
    values = read_config_file(REPOSITORY / "configs" / f"{preset}.yaml")
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    assert TrainConfig(**{k: v for k, v in values.items() if k in known}).global_batch == GLOBAL_BATCH[preset]
