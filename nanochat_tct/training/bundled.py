"""The bundled data: synthetic workflows, written and prepared when a run is not told of any other."""

from nanochat_tct.data.prepare import PrepareConfig, prepare
from nanochat_tct.synthetic.synthesize import SynthesizeConfig, synthesize_folder
from nanochat_tct.training.config import BUNDLED_STORE

COUNT = 2500  # workflows: a little more than the demo trains on
TRAIN_SPLIT = 0.95  # 125 are enough to measure by, and an evaluation of them is short
WORKFLOWS_DIR = "data/demo-workflows"


def prepare_bundled(tokenizer: str) -> str:
    """Write and prepare the synthetic workflows, unless that was done before. Returns the store's folder."""
    print(f"no --data-dir: taking {COUNT:,} synthetic workflows, in {WORKFLOWS_DIR}", flush=True)
    synthesize_folder(SynthesizeConfig(count=COUNT, output=WORKFLOWS_DIR))
    prepare(
        PrepareConfig(
            input=[WORKFLOWS_DIR], output=BUNDLED_STORE, train_split=TRAIN_SPLIT, tokenizer=tokenizer
        )
    )
    return BUNDLED_STORE
