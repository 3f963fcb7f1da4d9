from collections.abc import Iterator

import pytest

from nanochat_tct.tuning import posterior


@pytest.fixture(scope="module", autouse=True)
def quick_fits() -> Iterator[None]:
    """Fits from fewer samples, for tests of what follows from a fit. Those of the fit itself take all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(posterior, "PARTICLES", 300)
        yield
