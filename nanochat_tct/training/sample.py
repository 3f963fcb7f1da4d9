"""Shows at the end of a run what its model writes."""

from pathlib import Path

from nanochat_tct.documents import to_yaml
from nanochat_tct.generation.engine import SamplingConfig, generate_tokens
from nanochat_tct.generation.generate import Sample, in_order
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.training.checkpoint import load_model
from nanochat_tct.training.config import ResolvedConfig

MAX_TOKENS = 512
CANDIDATES = 8  # no slower than one: the engine writes as many and more at a time


def print_samples(run_dir: Path, config: ResolvedConfig) -> list[Sample]:
    """Print `num_samples` workflows from the run's best checkpoint in YAML, rather ones that the model itself ended.

    Returns: them.
    """
    if not config.num_samples:
        return []
    model, _ = load_model(run_dir)
    sampling = SamplingConfig(temperature=0.8, top_p=0.95, seed=config.seed, max_tokens=MAX_TOKENS)
    num_candidates = max(config.num_samples, CANDIDATES)
    ended: list[Sample] = []
    cut_off: list[Sample] = []
    tokenizer = load_tokenizer(config.tokenizer)
    generated = generate_tokens(model, tokenizer, [], num_candidates, sampling)
    for _, sample in in_order(tokenizer, generated):
        (ended if sample.completed_by == "model" else cut_off).append(sample)
        if len(ended) == config.num_samples:
            break
    samples = [*ended, *cut_off][: config.num_samples]
    for sample in samples:
        verdict = "valid" if sample.valid else f"not valid: {sample.problem}"
        closed = "" if sample.completed_by == "model" else f", ended by the limit of {MAX_TOKENS}"
        print(f"a generated workflow ({verdict}; {len(sample.tokens)} tokens{closed}):\n")
        print(to_yaml(sample.value), flush=True)
    return samples
