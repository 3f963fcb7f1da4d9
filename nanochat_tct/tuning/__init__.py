"""Model size, learning rate and more, swept under a budget that cannot be exceeded; `Sweep` is the Python API."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanochat_tct.tuning.api import Prediction, Sweep

__all__ = ["Prediction", "Sweep"]


def __getattr__(name: str) -> Any:
    """The API when it is asked for: the modules of this package are imported without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nanochat_tct.tuning import api

    return getattr(api, name)
