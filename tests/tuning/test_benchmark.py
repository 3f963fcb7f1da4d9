"""The statistics of benchmarks/tuning.py."""

import pytest

from benchmarks.tuning import paired_t_test, table


def test_paired_t_test_of_students_sleep_data() -> None:
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    assert paired_t_test(first, second) == pytest.approx(0.002833, abs=1e-6)  # R's t.test(paired = TRUE)
    assert paired_t_test(first, first) == 1


def test_strategies_are_compared_on_the_seeds_that_they_share() -> None:
    def run(bits_per_byte: float) -> dict[str, object]:
        return {"bits_per_byte": bits_per_byte, "size": "1x32", "learning_rate": 0.03}

    runs = {("job", 0): run(1.0), ("job", 1): run(1.2), ("rule", 0): run(1.1), ("rule", 1): run(1.32)}
    runs["job", 2] = run(9.0)  # rule has not run with this seed yet
    job, rule = table(runs).splitlines()[2:4]
    assert job.startswith("| job | 3 | 3.7333 |")
    assert "| 1.2100 | 0.1556 | 1.1000 to 1.3200 | +10.00% | 0.058 |" in rule
