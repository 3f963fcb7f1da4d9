"""Metrics of runs and sweeps as gauges of Ray, which its Prometheus endpoint serves on every node."""

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Gauge

PREFIX = "nanochat_tct_"
# Names as in metrics.jsonl, with what they are. Ray's own prefix, `ray_`, comes before ours.
OF_RUNS = {
    "iter": "optimizer steps done",
    "loss": "training loss in nats a token",
    "lr": "learning rate",
    "grad_norm": "norm of the gradient before clipping",
    "tokens_per_second": "training tokens a second over all workers",
    "mfu": "share of the machines' peak FLOPs that the model uses",
    "cost_usd": "US dollars that the run has cost",
    "bits_per_byte": "bits per byte of the validation split",
}
OF_SWEEPS = {
    "sweep_spent": "spent of a sweep's budget, in its unit (dollars, GPU-hours or FLOPs)",
    "sweep_budget": "budget of a sweep, in its unit",
}


class RayGauges:
    """Gauges with one tag, the name of a run, trial or sweep. Each is made when it is set first."""

    def __init__(self, run: str, descriptions: Mapping[str, str] = OF_RUNS) -> None:
        self._run, self._descriptions = run, descriptions
        self._gauges: dict[str, Gauge] = {}

    def set(self, metrics: Mapping[str, Any]) -> None:
        """Show those metrics that have a description and a value."""
        for name, text in self._descriptions.items():
            if metrics.get(name) is None:
                continue
            if name not in self._gauges:
                self._gauges[name] = Gauge(PREFIX + name, text, ("run",))
                self._gauges[name].set_default_tags({"run": self._run})
            self._gauges[name].set(float(metrics[name]))
