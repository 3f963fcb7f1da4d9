"""A sweep in this process, one trial after the other, without Ray: for tests, and studies of many small sweeps."""

import torch

from nanochat_tct.training.distributed import Worker
from nanochat_tct.tuning.meter import INTERRUPTED
from nanochat_tct.tuning.sweep import Sweep
from nanochat_tct.tuning.trial import Losers, covers_rest, work


def run_alone(sweep: Sweep) -> bool:
    """Go on until the sweep is done. Returns False when it was interrupted.

    Raises: UserError when it cannot go on.
    """
    assert sweep.base.num_workers == 1 and sweep.slots == 1
    losers = Losers(sweep.ledger)
    while isinstance(name := sweep.next_trial(set()), str):
        if not covers_rest(sweep.ledger, name):
            continue
        result = work(sweep.folder, sweep.ledger, name, Worker(0, 1, torch.device("cpu")))
        if result["status"] == INTERRUPTED:
            return False
        sweep.ledger.settle(name, result)
        losers.remove()
    return True
