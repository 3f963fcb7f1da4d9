"""Writing workflows with a trained model; ``Completer`` completes texts for editors."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanochat_tct.generation.completer import Completer, Completion

__all__ = ["Completer", "Completion"]


def __getattr__(name: str) -> Any:
    """Import what needs PyTorch when it is asked for, so that --help answers at once."""
    if name in __all__:
        from nanochat_tct.generation import completer

        return getattr(completer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
