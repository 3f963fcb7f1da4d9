"""What is printed, written and sent."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nanochat_tct.tracking.line import duration, evaluation_line, log_line
from nanochat_tct.tracking.tracker import HYPERPARAMETERS, SHOWN_AT_FIRST, Tracker, read_metrics, wandb_mode
from nanochat_tct.training.speed import CostMeter

ITER = {
    "iter": 100,
    "loss": 5.2341,
    "lr": 3e-5,
    "grad_norm": 0.871,
    "tokens_per_second": 15000.2,
    "mfu": 0.412,
    "cost_usd": 0.421,
    "eta_seconds": 750.0,
    "skipped_iters": 0,
}
EVALUATION = {"iter": 100, "loss": 4.3, "perplexity": 73.7, "bits_per_byte": 0.8123, "is_best": True}


def test_log_line() -> None:
    assert log_line(ITER) == (
        "iter 100 | loss 5.234 | lr 0.000030 | grad_norm 0.87 | tokens/sec 15000 | mfu 41.2% | cost $0.42 | "
        "eta 0:12:30"
    )
    assert "loss nan" in log_line({**ITER, "loss": float("nan")})
    assert (
        evaluation_line(EVALUATION) == "eval 100 | bits per byte 0.8123 | loss 4.300 | perplexity 73.7 | best"
    )
    assert [duration(seconds) for seconds in (-1, 59.6, 360_000)] == ["0:00:00", "0:01:00", "100:00:00"]


def test_cost_goes_on_from_what_was_spent() -> None:
    now = 0.0
    meter = CostMeter(workers=4, hourly_usd=3.0, spent_usd=1.0, worker_seconds=60.0, clock=lambda: now)
    now = 1800.0
    assert meter.usd == pytest.approx(7.0)
    assert meter.worker_seconds == pytest.approx(60 + 7200)


def test_metrics_of_iters_that_are_done_again_are_dropped(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, say=lambda line: None)
    for step in (10, 20, 30):
        tracker.iteration({**ITER, "iter": step})
    tracker.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "tra')  # killed
    tracker = Tracker(tmp_path, say=lambda line: None, first_iter=20)
    tracker.iteration({**ITER, "iter": 30})
    tracker.close()
    assert [entry["iter"] for entry in read_metrics(tmp_path)] == [10, 20, 30]


def test_wandb_and_tensorboard_carry_the_same_numbers(tmp_path: Path) -> None:
    """In a process of its own with a key in its environment that must not turn up anywhere."""
    script = (
        "import json, sys; from pathlib import Path; from nanochat_tct.tracking.tracker import Tracker\n"
        "folder = Path(sys.argv[1]); numbers, evaluation = json.loads(sys.argv[2])\n"
        "tracker = Tracker(folder / 'run', folder / 'log', config={'tensorboard': True, 'wandb': 'offline',\n"
        "    'wandb_project': 'a', 'wandb_run_name': 'b', 'seed': 1, 'beta1': 0.9, 'learning_rate': 0.01})\n"
        "tracker.iteration(numbers); tracker.evaluation(evaluation); tracker.close()"
    )
    key = "0123456789abcdef0123456789abcdef01234567"
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), json.dumps([ITER, EVALUATION])],
        env={**os.environ, "WANDB_API_KEY": key},
        check=True,
        timeout=120,
    )
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or key.encode() not in file.read_bytes(), file
    [offline] = (tmp_path / "log" / "wandb").glob("offline-run-*/*.wandb")
    [board] = (tmp_path / "log").glob("events.out.tfevents.*")
    expected = {("train/" + name, 100, float(value)) for name, value in ITER.items() if name != "iter"}
    expected |= {
        ("validation/" + name, 100, float(value)) for name, value in EVALUATION.items() if name != "iter"
    }
    assert wandb_numbers(offline) == expected
    assert tensorboard_numbers(board) == {
        (name, step, float(np.float32(value))) for name, step, value in expected
    }
    shown, metrics = tensorboard_hyperparameters(board)
    assert shown == {"learning_rate": 0.01, "beta1": 0.9, "seed": 1.0}
    assert next(iter(shown)) == "learning_rate"  # and not beta1, as by the alphabet
    assert metrics == ["validation/bits_per_byte"]


def test_tensorboard_shows_at_first_what_a_sweep_varies(tmp_path: Path) -> None:
    config = dict.fromkeys((*HYPERPARAMETERS, "warmup_iters"), 1)
    varied = {"dropout": 0.1, "warmup_share": 0.2}
    Tracker(tmp_path / "run", tmp_path, config=config | {"tensorboard": True}, varied=varied).close()
    [board] = tmp_path.glob("events.out.tfevents.*")
    shown, _ = tensorboard_hyperparameters(board)
    assert list(shown)[:SHOWN_AT_FIRST] == ["dropout", "learning_rate", "n_embd", "n_layer", "warmup_share"]
    assert shown["warmup_share"] == 0.2 and shown["dropout"] == 0.1


def tensorboard_hyperparameters(path: Path) -> tuple[dict[str, float], list[str]]:
    """What TensorBoard's HParams page shows of a file of events: hyper-parameters in their order, names of metrics."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.backend_context import _sort_and_reduce_to_hparams_limit
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(path))
    events.Reload()
    written = [HParamsPluginData.FromString(data) for data in events.PluginTagToContent("hparams").values()]
    [start] = [data.session_start_info for data in written if data.HasField("session_start_info")]
    [experiment] = [data.experiment for data in written if data.HasField("experiment")]
    _sort_and_reduce_to_hparams_limit(experiment)
    metrics = [metric.name.tag for metric in experiment.metric_infos]
    values = {name: value.number_value for name, value in start.hparams.items()}
    return {info.name: values[info.name] for info in experiment.hparam_infos}, metrics


def tensorboard_numbers(path: Path) -> set[tuple[str, int, float]]:
    """Name, iter and value of all scalars in a file of TensorBoard events."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path))
    events.Reload()
    return {
        (name, point.step, point.value) for name in events.Tags()["scalars"] for point in events.Scalars(name)
    }


def wandb_numbers(path: Path) -> set[tuple[str, int, float]]:
    """Name, iter and value of all numbers in W&B's file of an offline run: its records, in LevelDB's log format."""
    from wandb.proto import wandb_internal_pb2

    content, place, record, found = path.read_bytes(), 7, b"", set()  # after W&B's own header
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # the rest of a block, too short for a record
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        piece = content[place + 7 : place + 7 + length]
        place += 7 + length
        record = piece if kind in (1, 2) else record + piece  # 1: whole; 2, 3, 4: first, middle, last part
        if kind in (1, 4):
            history = wandb_internal_pb2.Record.FromString(record).history
            items = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in history.item
            }
            own = {
                name: value for name, value in items.items() if name != "iter" and not name.startswith("_")
            }
            found |= {(name, items["iter"], float(value)) for name, value in own.items()}
    return found


def test_wandb_is_online_only_when_logged_in(monkeypatch: Any, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [wandb_mode(choice) for choice in ("auto", "off", "online", "offline")] == [
        *("offline", "off", "online", "offline")
    ]
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert wandb_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode("auto") == "off"
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert wandb_mode("auto") == "online"
