"""The small training runs that benchmarks compare."""

import numpy as np
import pyarrow as pa

from benchmarks.small_runs import Documents, train
from nanochat_tct.training.config import TrainConfig


def test_a_small_run_learns_a_pattern_and_counts_what_it_was_measured_on() -> None:
    tokens = np.tile(np.arange(1, 9, dtype=np.uint16), 40)  # forty documents of 1 2 3 4 5 6 7 8
    rows = pa.table({"start": np.arange(0, 320, 8), "length": [8] * 40, "json_bytes": [16] * 40})
    documents = Documents(tokens, {"train": rows[:32], "val": rows[32:]}, vocab_size=16, pad_token=0)
    shape = {"context_size": 24, "n_layer": 1, "n_head": 1, "n_embd": 32}
    config = TrainConfig(num_workers=1, batch_size=2, max_iters=60, **shape)
    result = train(documents, config, parts=None, evaluations=3)
    assert [done for done, _ in result["curve"]] == [20, 40, 60]
    assert result["tokens_per_document"] == 8
    assert result["epochs"] == 60 * 2 / 12  # 32 documents of a position and 8 tokens fill twelve windows
    assert result["weight_decay"] == 3.8  # 0.97 for one epoch; 0.64 / (0.03 * sqrt(32)) at the most
    guessing = np.log2(16) * 8 / 16
    assert result["curve"][-1][1] == result["bits_per_byte"] < guessing / 4
