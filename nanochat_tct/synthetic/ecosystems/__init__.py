"""What workflows do in each language and tool: one `Ecosystem` each, in one file a family, with its weight."""

from nanochat_tct.synthetic.ecosystems.clouds import ECOSYSTEMS as CLOUDS
from nanochat_tct.synthetic.ecosystems.compiled import ECOSYSTEMS as COMPILED
from nanochat_tct.synthetic.ecosystems.containers import ECOSYSTEMS as CONTAINERS
from nanochat_tct.synthetic.ecosystems.ecosystem import Axis, Ecosystem
from nanochat_tct.synthetic.ecosystems.functional import ECOSYSTEMS as FUNCTIONAL
from nanochat_tct.synthetic.ecosystems.interpreted import ECOSYSTEMS as INTERPRETED
from nanochat_tct.synthetic.ecosystems.javascript import ECOSYSTEMS as JAVASCRIPT
from nanochat_tct.synthetic.ecosystems.jvm_and_dotnet import ECOSYSTEMS as MANAGED
from nanochat_tct.synthetic.ecosystems.python import ECOSYSTEMS as PYTHON

ECOSYSTEMS: list[tuple[float, Ecosystem]] = [
    *PYTHON,
    *JAVASCRIPT,
    *COMPILED,
    *MANAGED,
    *INTERPRETED,
    *FUNCTIONAL,
    *CONTAINERS,
    *CLOUDS,
]

__all__ = ["ECOSYSTEMS", "Axis", "Ecosystem"]
