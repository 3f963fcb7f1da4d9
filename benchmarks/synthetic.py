"""Compare invented workflows with real ones: sizes, jobs, steps, triggers, keys, and the tokens that occur.

    python benchmarks/synthetic.py --corpus $NANOCHAT_TCT_CORPUS --documents 3000

Prints a line for each quantity: real, synthetic, their ratio, and its standard error by chance; then the quantities
that differ by more than 10%, and which of those differ by less than two standard errors.
"""

import argparse
import math
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is not installed
from benchmarks.held_out import some_workflows
from nanochat_tct.documents import to_json
from nanochat_tct.synthetic.synthesize import synthesize
from nanochat_tct.tokenizer import load_tokenizer

PERCENTILES = (5, 25, 50, 75, 90, 95, 99)
LEAST_SHARE = 0.02  # triggers and keys that are rarer in real workflows are left out: their counts are small
TOLERANCE = 0.1
NUM_PARTS = 10  # of the documents: how much these differ tells the standard error of the whole


def main() -> None:
    """Parse the arguments, measure both sides, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpus", default=os.environ.get("NANOCHAT_TCT_CORPUS"), help="folder with workflows.parquet"
    )
    parser.add_argument("--documents", type=int, default=3000, help="of each side")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    real = some_workflows(options.corpus, options.documents, options.seed)
    start = time.process_time()
    synthetic = [synthesize(index, options.seed) for index in range(len(real))]
    seconds = time.process_time() - start
    print(
        f"{len(real):,} documents each; {1000 * seconds / len(real):.2f} CPU seconds for 1,000 synthetic ones"
    )
    before, after = measure(real), measure(synthetic)
    before = {name: value for name, value in before.items() if ": " not in name or value >= LEAST_SHARE}
    errors = [relative_errors(before, real), relative_errors(before, synthetic)]
    differ: list[str] = []
    by_chance: list[str] = []
    for name, value in before.items():
        ratio = after.get(name, 0.0) / value
        error = ratio * math.hypot(*[of_side[name] for of_side in errors])
        print(f"{name:44} {value:9.3f} {after.get(name, 0.0):9.3f} {ratio:6.2f} ± {error:.2f}")
        if abs(ratio - 1) > TOLERANCE:
            (by_chance if abs(ratio - 1) < 2 * error else differ).append(name)
    print(
        f"{len(before) - len(differ) - len(by_chance)} of {len(before)} within {TOLERANCE:.0%}; "
        f"not, but within two standard errors: {', '.join(by_chance) or 'none'}; "
        f"neither: {', '.join(differ) or 'none'}"
    )


def relative_errors(names: Iterable[str], workflows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the standard error of each quantity as a share of it, from measuring parts of the workflows alone."""
    parts = [measure(workflows[start::NUM_PARTS]) for start in range(NUM_PARTS)]
    errors = {}
    for name in names:
        values = [part.get(name, 0.0) for part in parts]
        mean = statistics.mean(values)
        errors[name] = statistics.stdev(values) / math.sqrt(NUM_PARTS) / mean if mean else 0.0
    return errors


def measure(workflows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the quantities by name: sizes, and shares of workflows, jobs or steps."""
    tokenizer = load_tokenizer()
    jobs = [job for workflow in workflows for job in workflow["jobs"].values()]
    steps = [step for job in jobs for step in job.get("steps", ())]
    sizes = sorted(len(to_json(workflow).encode()) for workflow in workflows)
    result = {f"bytes, percentile {p}": float(sizes[len(sizes) * p // 100]) for p in PERCENTILES}
    result["bytes, mean"] = statistics.mean(sizes)
    result.update(_spread("jobs per workflow", [len(workflow["jobs"]) for workflow in workflows]))
    result.update(_spread("steps per job", [len(job["steps"]) for job in jobs if "steps" in job]))
    result["bytes of run per step"] = statistics.mean(len(str(step.get("run", ""))) for step in steps)
    result.update(_shares("trigger", workflows, lambda workflow: _events(workflow["on"])))
    result.update(_shares("on is", workflows, lambda workflow: [type(workflow["on"]).__name__]))
    result.update(_shares("workflow", workflows, lambda workflow: workflow))
    for event in ("push", "pull_request", "workflow_dispatch", "workflow_call"):
        filters = [
            _filters(workflow["on"], event) for workflow in workflows if event in _events(workflow["on"])
        ]
        result.update(_shares(event, filters, lambda value: value))
    result.update(_shares("job", jobs, lambda job: job))
    result.update(_shares("step", steps, lambda step: step))
    result["steps that use an action by commit"] = _share(
        [step for step in steps if "uses" in step], lambda step: len(str(step["uses"]).split("@")[-1]) == 40
    )
    matrices = [job["strategy"].get("matrix") for job in jobs if isinstance(job.get("strategy"), dict)]
    result["matrix with include"] = _share(
        matrices, lambda matrix: isinstance(matrix, dict) and "include" in matrix
    )
    tokens = [token for workflow in workflows for token in tokenizer.encode_value(workflow)]
    result["share of token ids that occur"] = len(set(tokens)) / tokenizer.vocab_size()
    result["bytes per token"] = sum(sizes) / len(tokens)
    return result


def _events(on: Any) -> list[str]:
    return [on] if isinstance(on, str) else list(on)


def _filters(on: Any, event: str) -> dict[str, Any]:
    value = on.get(event) if isinstance(on, dict) else None
    return value if isinstance(value, dict) else {}


def _spread(name: str, counts: list[int]) -> dict[str, float]:
    return {
        f"{name}, mean": statistics.mean(counts),
        f"{name}, more than 1": _share(counts, lambda count: count > 1),
        f"{name}, more than 3": _share(counts, lambda count: count > 3),
        f"{name}, more than 8": _share(counts, lambda count: count > 8),
    }


def _share(values: list[Any], holds: Callable[[Any], bool]) -> float:
    return sum(map(holds, values)) / max(1, len(values))


def _shares(name: str, values: list[Any], parts: Callable[[Any], Iterable[str]]) -> dict[str, float]:
    """Return the shares of the values that have each part, by the name of the part."""
    counts = Counter(part for value in values for part in parts(value))
    return {f"{name}: {part}": count / len(values) for part, count in counts.most_common()}


if __name__ == "__main__":
    main()
