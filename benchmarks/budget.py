"""Print a table of the cost of training the presets on rented GPUs.

    python benchmarks/budget.py --usd-per-hour A100=1.80 H100=3.00
    python benchmarks/budget.py --usd-per-hour H100=3.00 --tokens-per-second H100/small=1200000

A run has the iters and the global batch of configs/PRESET.yaml. Give the tokens per second that you measured (`python
benchmarks/training.py --device cuda`, or the log of a run); otherwise they are estimated from the model's FLOPs and an
assumed share of the GPU's peak, as the table notes.
"""

import argparse
import sys
from pathlib import Path

from nanochat_tct.config import parse_arguments
from nanochat_tct.errors import UserError, exit_code
from nanochat_tct.model.accounting import flops_per_token, peak_flops
from nanochat_tct.model.config import PRESETS
from nanochat_tct.tracking.line import duration
from nanochat_tct.training.config import TrainConfig

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
MEASURED_PRESETS = ("small", "medium", "large")
ASSUMED_MFU = 0.4  # where nothing was measured


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--usd-per-hour", nargs="+", required=True, metavar="GPU=USD", help="of one GPU")
    parser.add_argument(
        "--tokens-per-second", nargs="*", default=[], metavar="GPU/PRESET=N", help="of one GPU"
    )
    options = parser.parse_args()

    def show() -> None:
        prices = numbers_of(options.usd_per_hour)
        measured = numbers_of(options.tokens_per_second)
        print("\n".join(table(prices, measured)))

    return exit_code(show)


def numbers_of(arguments: list[str]) -> dict[str, float]:
    """`NAME=NUMBER` by name. Raises: UserError."""
    numbers = {}
    for argument in arguments:
        name, _, number = argument.partition("=")
        try:
            numbers[name] = float(number)
        except ValueError as error:
            raise UserError(f"{argument!r} is not NAME=NUMBER, as in H100=3.00") from error
    return numbers


def table(prices: dict[str, float], measured: dict[str, float]) -> list[str]:
    """Lines of Markdown. Raises: UserError for a GPU without a listed peak, when the peak is needed."""
    lines = [
        "| config | tokens of the run | GPU | tokens/s of one GPU | GPU-hours | USD |",
        "| --- " * 6 + "|",
    ]
    for preset in MEASURED_PRESETS:
        config = parse_arguments(TrainConfig, ["--config", str(CONFIGS / f"{preset}.yaml")], "train", "")
        tokens = config.max_iters * config.global_batch * PRESETS[preset].context_size
        for gpu, price in prices.items():
            speed, note = measured.get(f"{gpu}/{preset}"), "measured"
            if speed is None:
                peak = peak_flops(gpu)
                if peak is None:
                    raise UserError(
                        f"the peak of {gpu!r} is missing: give --tokens-per-second {gpu}/{preset}=N"
                    )
                speed = ASSUMED_MFU * peak / flops_per_token(PRESETS[preset])
                note = f"estimated: {ASSUMED_MFU:.0%} of {peak / 1e12:.0f} TFLOP/s"
            hours = tokens / speed / 3600
            lines.append(
                f"| {preset} | {tokens / 1e9:.2f} billion | {gpu} | {speed:,.0f} ({note}) | "
                f"{hours:.2f} ({duration(3600 * hours)}) | {hours * price:.2f} |"
            )
    return lines


if __name__ == "__main__":
    sys.exit(main())
