import functools
from collections.abc import Iterator

import pytest

from nanochat_tct.tuning import fit
from nanochat_tct.tuning.posterior import sample_posterior


@pytest.fixture(scope="module", autouse=True)
def quick_fits() -> Iterator[None]:
    """Fits from fewer samples, for tests of what follows from a fit. Those of the fit itself take all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "sample_posterior", functools.partial(sample_posterior, particles=300, moves=20))
        yield
