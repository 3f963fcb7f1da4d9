"""What a finished run leaves for people."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from nanochat_tct.config import parse_arguments, to_dict
from nanochat_tct.documents import read_workflow
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.tracking.tracker import read_metrics
from nanochat_tct.training import run_folder
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.training.run_folder import print_completions, write_run_folder
from tests.support.workers import small_config, small_store, train_alone


def test_the_folder_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from matplotlib.image import imread

    # What has hardly learned anything goes on to the limit.
    monkeypatch.setattr(run_folder, "NEW_TOKENS", 64)
    monkeypatch.setattr(run_folder, "NUM_LINES", 10)
    config = small_config(small_store(tmp_path / "store"), tmp_path, num_samples=2)
    run_dir = Path(train_alone(config)["run_dir"])
    capsys.readouterr()
    samples = print_completions(run_dir, config)
    printed = capsys.readouterr().out
    write_run_folder(run_dir, config, samples)

    read = parse_arguments(TrainConfig, ["--config", str(run_dir / "config.yaml")], "train", "")
    assert to_dict(read) == to_dict(config)
    table = pyarrow.parquet.read_table(run_dir / "metrics.parquet")
    written = [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]
    assert written == read_metrics(run_dir) and len(written) == 12 + 3  # iters and evaluations
    curve = imread(run_dir / "loss.png")  # (height, width, 4)
    assert len(np.unique(curve.reshape(-1, 4), axis=0)) > 2  # not an empty picture
    files = sorted((run_dir / "samples").iterdir())
    assert [file.name for file in files] == ["01.yml", "02.yml"]
    for file, sample in zip(files, samples, strict=True):
        assert read_workflow(file.read_text(), "yaml") == sample.value
        load_tokenizer().encode(json.dumps(sample.value))  # valid
    prompts = re.findall(
        r"a half-written workflow:\n\n(.*?)\nthe model's completion \(valid; ", printed, re.S
    )
    assert len(prompts) == 2
    for file, prompt in zip(files, prompts, strict=True):
        assert prompt.count("\n") > 1 and file.read_text().startswith(prompt)
        assert file.read_text().removeprefix(prompt) in printed

    # The run goes on: what the folder holds is of all its iters, and samples are not kept beside new ones.
    config = dataclasses.replace(config, max_iters=14, num_samples=1)
    train_alone(config)
    write_run_folder(run_dir, config, print_completions(run_dir, config))
    assert pyarrow.parquet.read_table(run_dir / "metrics.parquet")["iter"].to_pylist()[-1] == 14
    assert [file.name for file in (run_dir / "samples").iterdir()] == ["01.yml"]
    assert "max_iters: 14" in (run_dir / "config.yaml").read_text()
