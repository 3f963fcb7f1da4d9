"""The bundled data: synthetic workflows, prepared when a run is not told of any other."""

from pathlib import Path

from nanochat_tct.data.store_writer import write_store
from nanochat_tct.tokenizer import load_tokenizer

BUNDLED_DIR = "data/demo"


def prepare_bundled(tokenizer: str) -> str:
    """Write synthetic workflows and prepare them, unless that was done before. Returns the store's folder."""
    import random

    rng = random.Random(0)  # stand-in until synthesize and prepare are there
    documents = []
    for _ in range(400):
        steps = [{"run": f"echo {rng.randrange(100)}"} for _ in range(rng.randrange(1, 8))]
        documents.append(
            {"on": "push", "jobs": {f"j{rng.randrange(5)}": {"runs-on": "ubuntu-latest", "steps": steps}}}
        )
    if not Path(BUNDLED_DIR).exists():
        write_store(BUNDLED_DIR, documents, load_tokenizer(tokenizer))
    return BUNDLED_DIR
