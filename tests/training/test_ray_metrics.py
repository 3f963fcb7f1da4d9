"""What Ray's Prometheus endpoint serves of a run."""

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from nanochat_tct.training.ray_metrics import OF_RUNS, OF_SWEEPS, PREFIX, RayGauges

DASHBOARD = Path(__file__).parents[2] / "cluster" / "grafana.json"


@pytest.mark.processes
def test_prometheus_can_read_them(ray_session: Any) -> None:
    node = ray_session.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    gauges = [RayGauges("before"), RayGauges("mine"), RayGauges("mine", OF_SWEEPS)]
    values: dict[str, Any] = {name: index + 0.5 for index, name in enumerate(OF_RUNS | OF_SWEEPS)}
    expected = {f"ray_{PREFIX}{name}": value for name, value in values.items()}
    found: dict[str, float] = {}
    end = time.monotonic() + 60
    while found != expected and time.monotonic() < end:  # Ray collects them every few seconds
        for each in gauges:
            each.set({**values, "other": 1})
        with urllib.request.urlopen(address, timeout=10) as answer:
            lines = re.findall(r'^(\w+)\{[^}]*run="mine"[^}]*\} (.+)$', answer.read().decode(), re.M)
        found = {name: float(value) for name, value in lines}
        time.sleep(0.5)
    assert found == expected


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    shown = {
        name
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"\w+_\w+", target["expr"])
    }
    assert shown == {f"ray_{PREFIX}{name}" for name in OF_RUNS | OF_SWEEPS} - {f"ray_{PREFIX}iter"}
