"""What a finished run leaves beside its checkpoints, for people and their tools.

<checkpoint_dir>/<run_name>/
    config.yaml       all settings, which `train --config` reads
    metrics.parquet   a row for each log line (kind "train") and evaluation (kind "validation")
    loss.png          both as curves
    samples/01.yml    workflows that the model wrote
"""

import dataclasses
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from nanochat_tct.config import write_yaml
from nanochat_tct.documents import to_yaml
from nanochat_tct.generation.generate import Sample
from nanochat_tct.tracking.plot import plot
from nanochat_tct.tracking.tracker import read_metrics
from nanochat_tct.training.config import ResolvedConfig

CONFIG, METRICS_TABLE, CURVE, SAMPLES = "config.yaml", "metrics.parquet", "loss.png", "samples"


def write_run_folder(run_dir: Path, config: ResolvedConfig, samples: list[Sample]) -> None:
    """Write or renew all of it.

    Args:
        run_dir: of a run with at least one log line.
        samples: in place of those of an earlier sitting; where there are none, those stay.
    """
    write_yaml(dataclasses.replace(config, resume=False), run_dir / CONFIG)
    entries = read_metrics(run_dir)
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    columns = {name: pa.array([entry.get(name) for entry in entries]) for name in names}
    pyarrow.parquet.write_table(pa.table(columns), run_dir / METRICS_TABLE)
    plot([run_dir], run_dir / CURVE)
    if samples:
        shutil.rmtree(run_dir / SAMPLES, ignore_errors=True)
        (run_dir / SAMPLES).mkdir()
        for number, sample in enumerate(samples, 1):
            path = run_dir / SAMPLES / f"{number:02d}.yml"
            path.write_text(to_yaml(sample.value), encoding="utf-8")
