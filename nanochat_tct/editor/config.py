"""The flags of `lsp`."""

from dataclasses import dataclass

from nanochat_tct.config import option
from nanochat_tct.errors import UserError


@dataclass(frozen=True)
class LspConfig:
    """The flags of `lsp`."""

    checkpoint: str | None = option(
        None, "checkpoint, or the directory of a run: its best; it suggests lines", is_path=True
    )
    threshold: float = option(0.3, "least probability of a suggestion of the checkpoint; 1: none")

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UserError(f"--threshold is a probability from 0 to 1, not {self.threshold}")


def run(config: LspConfig) -> None:
    """Serve one editor over standard input and output, until it says goodbye.

    Raises:
        UserError: the extra is not installed, or the checkpoint cannot be used.
    """
    try:
        import pygls  # noqa: F401
    except ImportError:
        raise UserError(
            "the language server needs pygls, which is not installed: python -m pip install 'nanochat-tct[editor]'"
        ) from None
    from nanochat_tct.editor.server import serve

    serve(config)
