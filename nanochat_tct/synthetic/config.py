"""The flags of `synthesize`."""

from dataclasses import dataclass

from nanochat_tct.config import REQUIRED, option
from nanochat_tct.errors import UserError
from nanochat_tct.limits import refuse_absurd

MOST_PROCESSES = 1024


@dataclass(frozen=True, kw_only=True)
class SynthesizeConfig:
    """The flags of `synthesize`."""

    count: int = option(REQUIRED, "how many workflows", unit="workflows", least=1)
    output: str = option(
        REQUIRED, "the folder to write them to; sub-folders of 1,000 above that count", is_path=True
    )
    format: str = option("json", "compact JSON, or YAML", choices=("json", "yaml"))
    seed: int = option(0, "another seed, other workflows")
    concurrency: int | None = option(None, "processes; none: one a CPU; the files are the same")

    def __post_init__(self) -> None:
        refuse_absurd(self)
        if self.concurrency is not None and not 1 <= self.concurrency <= MOST_PROCESSES:
            raise UserError(
                f"concurrency is {self.concurrency}: it must be from 1 to {MOST_PROCESSES} processes"
            )
