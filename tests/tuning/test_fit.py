"""The fit against sweeps with a known truth, and its samples against posteriors in closed form."""

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat_tct.errors import UserError
from nanochat_tct.tuning.fit import Fit, effective_tokens, fit_trials, on_whole_split
from nanochat_tct.tuning.posterior import sample_posterior
from nanochat_tct.tuning.records import Trial
from tests.tuning.curves import WIDTHS, Curve, parameters, trial

FINAL_FLOPS = 1e14


@pytest.fixture(scope="module")
def quick_fits() -> None:
    """None here."""


def final_tokens(flops: float = FINAL_FLOPS) -> dict[str, int]:
    return {size: int(flops / (6 * parameters(size))) for size in WIDTHS}


def random_curve(seed: int) -> Curve:
    """A truth of another kind for each seed, within what papers report."""
    rng = np.random.default_rng(seed)
    return Curve(
        floor=rng.uniform(0.4, 0.8),
        by_parameters=rng.uniform(0.2, 0.5),
        by_tokens=rng.uniform(0.3, 0.8),
        alpha=rng.uniform(0.25, 0.5),
        beta=rng.uniform(0.22, 0.45),
        burn_in=10 ** rng.uniform(3, 6),
        rate=0.0075 * math.exp(0.5 * rng.standard_normal()),
        width_slope=-1 + 0.3 * rng.standard_normal(),
        tokens_slope=rng.uniform(-0.3, 0),
        curvature=rng.uniform(0.015, 0.08),
        noise=rng.uniform(0.002, 0.008),
    )


def test_dense_sweep_is_recovered() -> None:
    curve = Curve(noise=0.001)
    trials = curve.sweep(0, factors=(0.25, 0.5, 1, 2, 4), flops=(1e12, 4e12, 1.6e13))
    fit = fit_trials(trials, final_tokens())
    truth = {size: curve.loss(size, tokens) for size, tokens in final_tokens().items()}
    assert truth[fit.best.size] < min(truth.values()) * 1.005
    for size in fit.sizes:
        best = curve.best_rate(size.size, size.tokens)
        assert abs(math.log(size.learning_rate.middle / best)) < 0.25
        assert abs(size.bits_per_byte.middle / truth[size.size] - 1) < 0.02
    assert fit.best.learning_rate.middle == next(
        size.learning_rate.middle for size in fit.sizes if size.size == fit.best.size
    )


def test_intervals_hold_the_truth_and_choices_are_good() -> None:
    """Of two sizes at three rates, for twelve truths: 90% intervals, so that one or two may miss."""
    rate_hits, loss_hits, regrets = [], [], []
    for seed in range(12):
        curve = random_curve(seed)
        fit = fit_trials(curve.sweep(seed, sizes=("narrow", "middle")), final_tokens())
        for size in fit.sizes:
            best = curve.best_rate(size.size, size.tokens)
            rate_hits.append(size.learning_rate.low <= best <= size.learning_rate.high)
            truth = curve.loss(size.size, size.tokens)
            loss_hits.append(size.bits_per_byte.low <= truth <= size.bits_per_byte.high)
        possible = [curve.loss(size.size, size.tokens) for size in fit.sizes]
        chosen = curve.loss(fit.best.size, fit.final_tokens[fit.best.size], fit.best.learning_rate.middle)
        regrets.append(chosen / min(possible) - 1)
    assert np.mean(rate_hits) >= 0.8
    assert np.mean(loss_hits) >= 0.8
    assert np.mean(regrets) < 0.015


def test_more_trials_make_intervals_narrower() -> None:
    curve = Curve()

    def widths(fit: Fit) -> tuple[float, float]:
        low, _, high = fit.best.learning_rate
        return math.log(high / low), math.log(fit.best.bits_per_byte.high / fit.best.bits_per_byte.low)

    one = widths(fit_trials(curve.sweep(0, sizes=("middle",), factors=(1,)), final_tokens()))
    few = widths(fit_trials(curve.sweep(0), final_tokens()))
    many = widths(fit_trials(curve.sweep(0, flops=(1e12, 4e12, 1.6e13)), final_tokens()))
    assert one[0] > few[0] > many[0]
    assert one[1] > few[1] > many[1]


@pytest.mark.parametrize("factors", [(1,), (0.5,), (1 / 3, 1, 3)])
def test_single_size_is_enough(factors: tuple[float, ...]) -> None:
    curve = Curve()
    fit = fit_trials(curve.sweep(0, sizes=("middle",), factors=factors), final_tokens())
    assert fit.best.size == "middle"
    low, _, high = fit.best.learning_rate
    assert low < curve.best_rate("middle", final_tokens()["middle"]) < high
    low, middle, high = fit.predict("middle", final_tokens()["middle"])
    assert 0 < low < middle < high < math.inf
    assert low < curve.loss("middle", final_tokens()["middle"]) < high


def test_what_diverged_lowers_the_rate() -> None:
    curve = Curve()
    trials = curve.sweep(0, sizes=("middle",), factors=(0.3, 1))
    high = dataclasses.replace(trials[-1], trial="high", learning_rate=trials[-1].learning_rate * 2)
    without = fit_trials(trials).best.learning_rate.middle
    stopped = dataclasses.replace(high, status="stopped", bits_per_byte=None)
    assert fit_trials([*trials, stopped]).best.learning_rate.middle < without * 0.9
    failed = dataclasses.replace(high, status="failed", bits_per_byte=None)
    assert fit_trials([*trials, failed]).best.learning_rate.middle == without


def varied_sweep(curve: Curve, *variants: tuple[dict[str, Any], float, float]) -> list[Trial]:
    """A sweep of two sizes for each variant: changes of settings, the share of the loss that they cost, the factor by
    which they move the best rate."""
    return [
        dataclasses.replace(
            each,
            trial=f"{number}-{each.trial}",
            learning_rate=each.learning_rate * factor,
            bits_per_byte=(each.bits_per_byte or 0) * math.exp(cost),
            **changes,
        )
        for number, (changes, cost, factor) in enumerate(variants)
        for each in curve.sweep(number, sizes=("narrow", "middle"))
    ]


def test_settings_add_up() -> None:
    """One value costs 2%, another 5% and moves the best rate; the best ones were never run together."""
    curve = Curve()
    trials = varied_sweep(
        curve, ({}, 0.02, 1.0), ({"weight_decay": 0.2}, 0.0, 1.0), ({"optimizer": "adamw"}, 0.07, 2.0)
    )
    fit = fit_trials(trials, final_tokens())
    assert {name: value for name, value in fit.best_values.items() if value is not None} == {
        "dropout": 0.0,
        "weight_decay": 0.2,
        "optimizer": "muon",
        "beta1": 0.9,
        "beta2": 0.95,
        "grad_clip": 1.0,
    }
    assert "weight_decay 0.2, optimizer muon:" in fit.decision and "dropout" not in fit.decision
    costs = {value.value: value.cost for value in fit.values}
    for value, cost in {0.1: 0.02, 0.2: 0.0, "muon": 0.0, "adamw": 0.05}.items():
        assert costs[value].low - 0.002 <= math.expm1(cost) <= costs[value].high + 0.002
        assert costs[value].high - costs[value].low < 0.05
    assert [value.num_finished for value in fit.values] == [12, 6, 6, 12]
    expected = curve.loss("middle", final_tokens()["middle"])
    low, middle, high = fit.predict("middle", final_tokens()["middle"])
    plain = fit_trials(varied_sweep(curve, ({}, 0.0, 1.0)), final_tokens()).predict(
        "middle", final_tokens()["middle"]
    )
    assert low < expected < high and abs(middle / plain[1] - 1) < 0.05


def test_a_value_of_which_nothing_finished_is_not_chosen() -> None:
    trials = Curve().sweep(0, sizes=("middle",))
    bad = [
        dataclasses.replace(
            each, trial=f"bad-{each.trial}", dropout=0.9, status="stopped", bits_per_byte=None
        )
        for each in trials
    ]
    fit = fit_trials([*trials, *bad])
    assert fit.best_values["dropout"] == 0.0
    # That all rates were stopped is not blamed on the rates.
    alone = fit_trials(trials)
    assert abs(math.log(fit.best.learning_rate.middle / alone.best.learning_rate.middle)) < 0.15
    (good, lost) = fit.values
    assert lost.cost.middle > 0.02 > good.cost.middle and lost.num_finished == 0
    only = [dataclasses.replace(each, dropout=0.9) for each in trials]
    assert fit_trials(only).best_values["dropout"] == 0.9 and not fit_trials(only).values


def test_only_finished_trials_of_the_sweep_are_measured() -> None:
    trials = Curve().sweep(0, sizes=("middle",))
    noise = [
        trial("middle", 0.5, 1000, 9.0, purpose="probe", trial="a"),
        trial("middle", 0.5, 1000, 9.0, status="cut", trial="b"),
        trial("middle", 0.5, 1000, 9.0, status="failed", trial="c"),
        trial("middle", 0.5, 1000, 0.1, purpose="final", trial="d"),
        trial("middle", 0.5, 1000, math.nan, trial="e"),
    ]
    assert fit_trials([*noise, *trials]).decision == fit_trials(trials).decision


def test_size_of_which_no_trial_finished_is_still_predicted() -> None:
    curve = Curve()
    trials = curve.sweep(0, sizes=("narrow", "middle"))
    lost = [
        dataclasses.replace(t, status="failed", bits_per_byte=None)
        for t in curve.sweep(1, sizes=("wide",), factors=(1,))
    ]
    fit = fit_trials([*trials, *lost], final_tokens())
    wide = next(size for size in fit.sizes if size.size == "wide")
    assert wide.num_finished == 0 and wide.edge is None
    assert wide.bits_per_byte.low < curve.loss("wide", wide.tokens) < wide.bits_per_byte.high


def test_nothing_finished_is_the_users_error() -> None:
    stopped = [trial("middle", rate, 1000, None, status="stopped") for rate in (0.1, 1.0)]
    with pytest.raises(UserError, match="none of the sweep's 2 trials finished"):
        fit_trials(stopped)
    with pytest.raises(UserError):
        fit_trials([])


def test_wild_point_does_not_carry_the_fit_away() -> None:
    curve = Curve(noise=0.002)
    trials = curve.sweep(0, factors=(0.25, 0.5, 1, 2, 4))
    wild, others = dataclasses.replace(trials[2], bits_per_byte=7.9), [*trials[:2], *trials[3:]]
    without = fit_trials(others).predict("middle", 1_000_000)[1]
    after = fit_trials([wild, *others]).predict("middle", 1_000_000)[1]
    assert abs(after / without - 1) < 0.03


def test_best_rate_beyond_those_tried_is_told() -> None:
    curve = Curve(curvature=0.08)
    best = curve.best_rate("middle", 3e12 / (6 * parameters("middle"))) / (0.96 / 128)
    for factors, edge in (((3, 6, 12), "low"), ((1 / 12, 1 / 6, 1 / 3), "high"), ((1 / 3, 1, 3), None)):
        sweep = curve.sweep(0, sizes=("middle",), factors=[best * factor for factor in factors])
        assert fit_trials(sweep).sizes[0].edge == edge


def test_finite_data_favours_larger_models() -> None:
    """With few unique tokens, those that a small model would repeat are worth little."""
    curve = Curve(unique_tokens=1_000_000, alpha=0.4)
    trials = curve.sweep(0, flops=(3e11, 1e12))
    plenty = [dataclasses.replace(t, unique_tokens=10**10) for t in trials]
    scarce, rich = (fit_trials(each, final_tokens(3e14)) for each in (trials, plenty))
    assert scarce.best.bits_per_byte.middle > rich.best.bits_per_byte.middle
    size_of = {"narrow": 0, "middle": 1, "wide": 2}
    assert size_of[scarce.best.size] >= size_of[rich.best.size]
    chance = {fit: {s.size: s.probability_best for s in fit.sizes}["wide"] for fit in (scarce, rich)}
    assert chance[scarce] > chance[rich]


def test_curve_passes_through_the_prediction() -> None:
    fit = fit_trials(Curve().sweep(0))
    tokens = fit.final_tokens["middle"]
    best = fit.learning_rate("middle", tokens).middle
    low, middle, high = fit.curve("middle", tokens, np.array([best / 9, best, best * 9])).T[1]
    assert low < middle < high
    assert abs(middle / fit.predict("middle", tokens)[1] - 1) < 0.01
    assert (fit.curve("middle", tokens, np.array([best / 9, best * 9]))[1] > middle).all()


def test_decision_is_two_plain_sentences() -> None:
    fit = fit_trials(Curve().sweep(0), final_tokens())
    assert len(fit.decision.split(". ")) == 2 and fit.decision.endswith(").")
    assert fit.best.size in fit.decision and f"{fit.best.learning_rate.middle:.2g}" in fit.decision
    assert f"{fit.best.bits_per_byte.middle:.4f}" in fit.decision


def test_order_of_trials_does_not_matter() -> None:
    trials = Curve().sweep(0, sizes=("narrow", "middle"))
    trials.append(trial("middle", 0.2, 1000, None, status="stopped"))
    expected = fit_trials(trials, final_tokens()).decision
    for seed in range(5):
        shuffled = random.Random(seed).sample(trials, len(trials))
        assert fit_trials(shuffled, final_tokens()).decision == expected


def test_unit_of_the_loss_does_not_matter() -> None:
    """Times a power of two, which floating point does exactly."""
    trials = Curve().sweep(0, sizes=("narrow", "middle"))
    fit = fit_trials(trials)
    for power in (-8, -5, 1, 3, 8):
        scaled = [dataclasses.replace(t, bits_per_byte=(t.bits_per_byte or 0) * 2.0**power) for t in trials]
        best = fit_trials(scaled).best
        assert best.size == fit.best.size and best.learning_rate.middle == fit.best.learning_rate.middle
        assert best.bits_per_byte.middle == pytest.approx(fit.best.bits_per_byte.middle * 2.0**power)


@settings(deadline=None)
@given(st.floats(1, 1e12), st.floats(1, 1e12), st.floats(1, 100))
def test_repeated_tokens_are_worth_less(tokens: float, unique: float, scale: float) -> None:
    def worth(tokens: float) -> float:
        return float(effective_tokens(np.array(tokens), np.array(unique), np.array(scale)))

    assert 0 < worth(tokens) <= tokens * (1 + 1e-9)
    assert worth(tokens) <= unique * (1 + scale) * (1 + 1e-9)
    assert worth(tokens / 2) <= worth(tokens) * (1 + 1e-9)
    if tokens <= unique:
        assert worth(tokens) == tokens


def test_four_epochs_are_nearly_as_good_as_new() -> None:
    """The finding of Muennighoff et al. 2023: up to 4 epochs little is lost, 40 are hardly better than 20."""
    unique, scale = np.array(1e6), np.array(15.4)
    worth = effective_tokens(np.array([4e6, 20e6, 40e6, 80e6]), unique, scale) / 1e6
    assert worth[0] > 0.9 * 4
    assert worth[2] < 0.4 * 40 and worth[3] < worth[2] * 1.15


# Sweeps of benchmarks/tuning.py over real workflows: size, rate, tokens, bits per byte.
SHORT_TRIALS = (  # vocabulary of 8,192, seed 2, 2026-11-26
    ("1x32", 0.0075, 19_200, 1.8161),
    ("2x64", 0.00375, 7_680, 1.8894),
    ("1x32", 0.03, 19_200, 1.8364),
    ("2x64", 0.015, 7_680, 1.8987),
    ("1x32", 0.12, 19_200, 1.9600),
    ("1x32", 0.00187, 19_200, 1.8784),
    ("2x64", 0.000937, 7_680, 1.9795),
    ("1x32", 0.00883, 51_456, 1.6720),
)
REACHED = 1.4365  # by 1x32 in 485,888 tokens
# Vocabulary of 1,024, seeds 0 to 2, 2026-11-30. From there on 2x64 gains far more than 1x32: at 0.004 it reached 1.666
# on the whole split in 1,099,776 tokens; 1x32 in 4,073,728 tokens for the same FLOPs 1.815 to 1.829, on these windows
# the second value of a row.
FIRST_TRIALS = (("1x32", 109_568), ("2x64", 28_672), ("2x160", 5_120))
FIRST_RATES = {"1x32": (0.0075, 0.03, 0.12), "2x64": (0.00375, 0.015, 0.06), "2x160": (0.0015, 0.006)}
THREE_SIZES = (
    (
        {"1x32": (2.1629, 2.1764, 2.3973), "2x64": (2.3948, 2.3454, 2.6447), "2x160": (2.8473, 2.7910)},
        1.8595,
        [("2x64", 0.00707, 89_344, 2.1355), ("1x32", 0.0106, 331_264, 2.0322)],
    ),
    (
        {"1x32": (2.1808, 2.1881, 2.4040), "2x64": (2.4016, 2.3710, 2.6745), "2x160": (2.8034, 2.8152)},
        1.9014,
        [("2x64", 0.0074, 89_344, 2.1373), ("1x32", 0.0116, 331_264, 2.0430)],
    ),
    (
        {"1x32": (2.1668, 2.1778, 2.3970), "2x64": (2.4249, 2.4209, 2.6444), "2x160": (2.8320, 2.7429)},
        1.9114,
        [("2x64", 0.00518, 89_344, 2.1473), ("1x32", 0.0109, 331_264, 2.0267)],
    ),
)


def real_trials(
    rows: Sequence[tuple[str, float, int, float | None]], parameters: Mapping[str, int], unique_tokens: int
) -> list[Trial]:
    """Trials of sizes that are named by layers and width; without a loss they were stopped."""
    return [
        dataclasses.replace(
            trial("narrow", rate, tokens, bits, unique_tokens=unique_tokens),
            trial=f"{size}-{rate}-{tokens}",
            size=size,
            n_layer=int(size.split("x")[0]),
            n_embd=int(size.split("x")[1]),
            parameters=parameters[size],
            status="stopped" if bits is None else "finished",
        )
        for size, rate, tokens, bits in rows
    ]


def test_short_real_trials_do_not_promise_too_much() -> None:
    """Their loss falls far more slowly than the constants of large models would have it."""
    trials = real_trials(SHORT_TRIALS, {"1x32": 538_656, "2x64": 1_151_040}, 4_791_808)
    low, middle, high = fit_trials(trials).predict("1x32", 485_888)
    assert low < REACHED < high
    assert middle > 0.92 * REACHED


@pytest.mark.parametrize("number", range(2))
def test_the_size_that_gains_more_from_tokens_is_chosen(number: int) -> None:
    """In trials that are twelve times shorter than the final run the smaller size is still ahead."""
    first, reached, longer = THREE_SIZES[number]
    rows: list[tuple[str, float, int, float | None]] = [("2x160", 0.024, 2_816, None), *longer]
    for size, tokens in FIRST_TRIALS:
        pairs = zip(FIRST_RATES[size], first[size], strict=True)
        rows += [(size, rate, tokens, bits) for rate, bits in pairs]
    trials = real_trials(rows, {"1x32": 79_904, "2x64": 233_536, "2x160": 952_480}, 5_087_296)
    final_tokens = {"1x32": 4_073_728, "2x64": 1_097_728, "2x160": 230_656}
    fits = [fit_trials(trials, final_tokens, seed=seed) for seed in range(3)]
    assert [fit.best.size for fit in fits] == ["2x64"] * 3  # whatever the samples
    low, middle, high = fits[0].predict("1x32", final_tokens["1x32"])
    assert low < reached < high and abs(middle / reached - 1) < 0.06


def test_what_trials_were_measured_by_widens_the_interval_and_changes_no_choice() -> None:
    """All trials took the same windows, whose level is off: a comparison does not see it, a prediction must."""
    rng = np.random.default_rng(0)
    hits = []
    for seed in range(8):
        curve, off = random_curve(seed), float(np.exp(0.04 * rng.standard_normal()))
        trials = [
            dataclasses.replace(
                each,
                bits_per_byte=(each.bits_per_byte or 0) * off,
                standard_error=0.04 * (each.bits_per_byte or 0),
            )
            for each in curve.sweep(seed, sizes=("narrow", "middle"))
        ]
        fit = fit_trials(trials, final_tokens())
        truth = [curve.loss(size.size, size.tokens) for size in fit.sizes]
        hits += [
            size.bits_per_byte.low <= bits <= size.bits_per_byte.high
            for size, bits in zip(fit.sizes, truth, strict=True)
        ]
    assert np.mean(hits) >= 0.8
    sure = fit_trials([dataclasses.replace(each, standard_error=0.0) for each in trials], final_tokens())
    assert math.log(fit.best.bits_per_byte.high / fit.best.bits_per_byte.low) > 0.1
    assert fit.sampling_error == pytest.approx(0.04 / off) and sure.sampling_error == 0
    assert (sure.best.size, sure.best_values) == (fit.best.size, fit.best_values)
    assert sure.best.learning_rate.middle == fit.best.learning_rate.middle
    assert (
        sure.best.bits_per_byte.high < fit.best.bits_per_byte.high
        and sure.best.bits_per_byte.low > fit.best.bits_per_byte.low
    )


def final_run(curve: Curve, tokens: int, off: float, **changes: Any) -> Trial:
    """The run that follows a sweep, on windows on which every model looks `off` times as bad."""
    bits = curve.loss("middle", tokens)
    values = {"standard_error": 0.05 * bits, "whole_split": bits, "whole_split_error": 0.0}
    return trial(
        "middle",
        curve.best_rate("middle", tokens),
        tokens,
        changes.pop("bits_per_byte", bits * off),
        purpose="final",
        **values | changes,
    )


def test_other_budgets_are_judged_with_the_final_run() -> None:
    curve = Curve()
    tokens = final_tokens()
    trials = [
        dataclasses.replace(each, bits_per_byte=1.06 * (each.bits_per_byte or 0), standard_error=0.07)
        for each in curve.sweep(0, flops=(1e12,))
    ]
    final = final_run(curve, tokens["middle"], 1.06)
    before, after = fit_trials(trials, tokens), fit_trials(on_whole_split([*trials, final]), tokens)
    factors = (0.5, 1.0, 2.0, 5.0, 10.0)
    losses = [found.bits_per_byte.middle for found in after.outlook(factors)]
    assert losses == sorted(losses, reverse=True) and losses[0] - losses[-1] > 0.02
    truth = curve.loss("middle", tokens["middle"])
    assert abs(after.predict("middle", tokens["middle"])[1] / truth - 1) < 0.01
    for factor in factors:
        number = int(factor * tokens["middle"])
        (low, _, high), (low_before, _, high_before) = (f.predict("middle", number) for f in (after, before))
        assert low < curve.loss("middle", number) < high
        assert high / low < high_before / low_before
    longer = after.outlook((10.0,))[0]
    assert longer.tokens == 10 * tokens[longer.size] and longer.learning_rate.middle > 0
    # One that was not finished, or not measured, says nothing.
    for status, bits in (("cut", 1.0), ("finished", None)):
        without = on_whole_split([*trials, final_run(curve, 10, 1.0, status=status, bits_per_byte=bits)])
        assert fit_trials(without, tokens).decision == before.decision


def test_a_final_run_on_the_windows_of_the_trials_leaves_their_error() -> None:
    final = final_run(Curve(), 10**7, 1.0, whole_split=None, whole_split_error=None)
    trials = [dataclasses.replace(each, standard_error=0.05) for each in Curve().sweep(0)]
    assert fit_trials(on_whole_split([*trials, final])).sampling_error > 0.03


# ----------------------------------------------------------------------------- its samples, against closed forms


def test_gaussian_posterior_is_met() -> None:
    """Prior N(0, 1), one measurement 2.0 of z0 with deviation 0.5; z1 and z2 stay at the prior."""
    z = sample_posterior(lambda z: -((z[:, 0] - 2.0) ** 2) / (2 * 0.25), dimensions=3)
    precision = 1 + 1 / 0.25
    assert abs(z[:, 0].mean() - 2.0 / 0.25 / precision) < 0.06
    assert abs(z[:, 0].std() - precision**-0.5) < 0.06
    assert np.allclose(z[:, 1:].mean(0), 0, atol=0.15) and np.allclose(z[:, 1:].std(0), 1, atol=0.12)


def test_narrow_posterior_far_out_in_the_prior_is_found() -> None:
    z = sample_posterior(lambda z: -((z[:, 0] + z[:, 1] - 6.0) ** 2) / (2 * 0.01**2), dimensions=2)
    assert np.allclose(z.sum(1), 6, atol=0.05)
    assert abs((z[:, 0] - z[:, 1]).std() - 2**0.5) < 0.2


def test_both_of_two_optima_are_kept() -> None:
    z = sample_posterior(lambda z: -((z[:, 0] ** 2 - 1) ** 2) / (2 * 0.05**2), dimensions=4)
    assert 0.35 < (z[:, 0] > 0).mean() < 0.65
    assert np.allclose(abs(z[:, 0]), 1, atol=0.15)


def test_impossible_values_are_left() -> None:
    def only_positive(z: np.ndarray) -> np.ndarray:
        return np.where(z[:, 0] > 0.5, 0.0, np.where(z[:, 1] > 0, -np.inf, np.nan))

    z = sample_posterior(only_positive, dimensions=2)
    assert (z[:, 0] > 0.5).all()


def test_seed_decides() -> None:
    def likelihood(z: np.ndarray) -> np.ndarray:
        return -((z[:, 0] - 1) ** 2)

    first, again, other = (sample_posterior(likelihood, 2, seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
