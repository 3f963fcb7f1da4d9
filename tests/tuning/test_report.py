"""The report, from the files that a sweep leaves."""

import base64
import dataclasses
import functools
import html.parser
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from nanochat_tct.errors import UserError, exit_code
from nanochat_tct.tuning import figures, report
from nanochat_tct.tuning.fit import Fit, fit_trials
from nanochat_tct.tuning.records import CURVES, TRIALS, Entry, Outcome, Point, Purpose, Trial
from nanochat_tct.tuning.report import Report, command, write_report
from nanochat_tct.tuning.results import Results, read_rows, write_rows
from tests.support.commands import run_python
from tests.tuning.curves import Curve, parameters, trial
from tests.tuning.test_sweep import finish, make_sweep

PICTURES = ("learning_rate", "cost", "spending")


@pytest.fixture(autouse=True)
def fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same trials are fitted once: most pages here are of the same sweep."""
    monkeypatch.setattr(
        report, "fit_trials", lambda trials, tokens: fit_once(tuple(trials), tuple(tokens.items()))
    )


@functools.cache
def fit_once(trials: tuple[Trial, ...], tokens: tuple[tuple[str, int], ...]) -> Fit:
    return fit_trials(trials, dict(tokens))


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of a page's text: drawing takes longest."""
    monkeypatch.setattr(report, "_draw", lambda report: {})


class Page(html.parser.HTMLParser):
    """What a page holds: its tags with attributes, its text, its table cells."""

    VOID = ("meta", "img", "br")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def finished_sweep(folder: Path, unit: str = "usd") -> tuple[list[Trial], Outcome]:
    """A sweep of three sizes, one stopped trial, one longer run, and the final run that follows."""
    trials, outcome = made_up_sweep(unit)
    write_sweep(folder, list(trials), outcome)
    return list(trials), outcome


@functools.cache
def made_up_sweep(unit: str) -> tuple[tuple[Trial, ...], Outcome]:
    curve = Curve()
    trials = curve.sweep(0, flops=(1e12,))
    longer = curve.sweep(1, sizes=("middle",), factors=(1,), flops=(4e12,))[0]
    trials += [dataclasses.replace(longer, trial="longer"), trial("wide", 0.05, 9000, None, status="stopped")]
    final_tokens = int(2e13 / (6 * parameters("middle")))
    fit = fit_trials(trials, {"middle": final_tokens})
    rate = fit.best.learning_rate.middle
    actual = curve.loss("middle", final_tokens, rate)
    trials.append(trial("middle", rate, final_tokens, actual, purpose="final", trial="final"))
    trials.insert(0, trial("narrow", 0.01, 5000, 3.0, purpose="probe", trial="probe"))
    if unit != "usd":
        trials = [dataclasses.replace(each, usd=0.0) for each in trials]
    outcome = Outcome(
        unit=unit,  # type: ignore[arg-type]
        budget=50.0 if unit == "usd" else 5e13,
        spent=31.2 if unit == "usd" else 3.12e13,
        hourly_usd=2.5 if unit == "usd" else None,
        size="middle",
        learning_rate=rate,
        predicted=fit.predict("middle", final_tokens),
        actual=actual,
        checkpoint="runs/final",
        decision=fit.decision,
    )
    return tuple(trials), outcome


def write_sweep(folder: Path, trials: list[Trial], outcome: Outcome, points: Sequence[Point] = ()) -> None:
    folder.mkdir(exist_ok=True)
    entries = [
        Entry(
            1000.0 + place,
            each.purpose,
            each.trial,
            "train",
            each.usd if outcome.unit == "usd" else each.flops,
            1.0,
            each.flops,
        )
        for place, each in enumerate(trials)
    ]
    idle: Purpose = "idle"
    entries.append(Entry(2000.0, idle, "", "idle", 0.01 * outcome.budget, 1.0, 0.0))
    Results(outcome, trials, entries, list(points)).write(folder)


def test_page_holds_everything_and_needs_nothing(tmp_path: Path) -> None:
    from matplotlib.image import imread

    trials, outcome = finished_sweep(tmp_path / "sweep")
    path = write_report(tmp_path / "sweep")
    assert path == tmp_path / "sweep/report/index.html"
    page = Page(path)
    assert outcome.decision in page.text
    assert f"{outcome.actual:.4f}" in page.text and "inside the interval" in page.text
    assert "Dollars" in page.text and "$31.20" in page.text and "optimizer" not in page.text
    names = {row[0] for row in page.rows}
    assert {each.trial for each in trials} <= names
    assert {"narrow", "middle", "wide"} <= names  # of the sizes' table
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [image["id"] for image in images] == list(PICTURES)
    for image, name in zip(images, PICTURES, strict=True):
        kind, data = str(image["src"]).split(",")
        written = (path.parent / f"{name}.png").read_bytes()
        assert kind == "data:image/png;base64" and base64.b64decode(data) == written
        pixels = imread(io.BytesIO(written), format="png")
        colours = np.ascontiguousarray((255 * pixels).astype(np.uint8)).view(np.uint32)  # of RGBA
        assert pixels.shape[1] > 1000 and len(np.unique(colours)) > 100
        assert len(str(image["alt"])) > 20
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    assert "http:" not in page.source and "https:" not in page.source and "url(" not in page.source
    assert "default-src 'none'" in page.source


def test_names_are_escaped(tmp_path: Path) -> None:
    trials, outcome = finished_sweep(tmp_path / "sweep")
    evil = "\"'><script>alert(1)</script>&amp;$x^2_"
    trials = [dataclasses.replace(each, size=evil if each.size == "wide" else each.size) for each in trials]
    trials[1] = dataclasses.replace(trials[1], trial=evil)
    outcome = dataclasses.replace(outcome, decision=evil, size=evil)
    write_sweep(tmp_path / "sweep", trials, outcome)
    page = Page(write_report(tmp_path / "sweep"))
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert [row[0] for row in page.rows].count(evil) == 2  # of sizes, of trials
    assert evil in page.text


def test_sweep_that_is_not_done_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    trials, outcome = finished_sweep(tmp_path / "sweep", "flops")
    outcome = Outcome(outcome.unit, outcome.budget, 3e12, None)
    for some, number_of_pictures in ((trials[:5], 3), (trials[:1], 1), ([], 1)):
        write_sweep(tmp_path / "sweep", some, outcome)
        page = Page(write_report(tmp_path / "sweep"))
        assert sum(tag == "img" for tag, _ in page.tags) == number_of_pictures
        assert "Actual" not in page.text and "Dollars" not in page.text and "$" not in page.text
        assert ("Nothing is decided" in page.text) == (number_of_pictures < 3)


def test_one_trial_that_diverged_later_does_not_hide_the_others(tmp_path: Path) -> None:
    """Values that are not finite, or that are all the same, are drawn or left out, not stumbled over."""
    trials, outcome = finished_sweep(tmp_path / "sweep")
    odd = [dataclasses.replace(trials[1], trial="nan", bits_per_byte=float("nan"))]
    odd += [dataclasses.replace(trials[1], trial="free", usd=0.0, flops=0.0, worker_seconds=0.0)]
    write_sweep(tmp_path / "sweep", [*trials, *odd], outcome)
    assert "nan" in {row[0] for row in Page(write_report(tmp_path / "sweep")).rows}
    write_sweep(tmp_path / "sweep", [trials[1]], outcome)
    Page(write_report(tmp_path / "sweep"))


def test_other_settings_that_were_varied_are_shown(tmp_path: Path) -> None:
    trials, outcome = finished_sweep(tmp_path / "sweep")
    others = [
        dataclasses.replace(
            each,
            trial=f"adamw-{each.trial}",
            optimizer="adamw",
            bits_per_byte=1.3 * (each.bits_per_byte or 0),
        )
        for each in trials
        if each.purpose == "sweep" and each.status == "finished"
    ]
    outcome = dataclasses.replace(outcome, varied={"optimizer": "muon"})
    write_sweep(tmp_path / "sweep", trials + others, outcome)
    page = Page(write_report(tmp_path / "sweep"))
    assert ", optimizer muon" in page.text
    (head,) = (row for row in page.rows if row[0] == "Trial")
    cells = {row[0]: row[head.index("optimizer")] for row in page.rows if len(row) == len(head)}
    assert cells["longer"] == "muon" and cells["adamw-longer"] == "adamw"
    by_value = {row[0]: row for row in page.rows if row[0].startswith("optimizer ")}
    assert float(by_value["optimizer adamw"][2].split("%")[0]) > 20
    assert by_value["optimizer muon"][3] == "100%"


def test_a_killed_sweep_is_told_from_its_ledger(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    for _ in range(3):
        finish(sweep, str(sweep.next_trial(set())))
    running = str(sweep.next_trial(set()))
    page = Page(write_report(sweep.folder))
    assert page.rows[-1][0] == running and page.rows[-1][-1] == "running"
    assert read_rows(sweep.folder / TRIALS, Trial)[-1].trial == running
    assert Results.read(sweep.folder).outcome.spent == sweep.ledger.spent > 0


def test_no_sweep_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no sweep"):
        write_report(tmp_path)


def test_command(tmp_path: Path) -> None:
    trials, outcome = finished_sweep(tmp_path / "sweep")
    write_sweep(tmp_path / "sweep", trials[:1], outcome)  # little to draw
    result = run_python("-m", "nanochat_tct.tuning.report", tmp_path / "sweep")
    assert result.code == 0, result.stderr
    assert Path(result.stdout.strip()).is_file()
    assert exit_code(lambda: command([str(tmp_path)])) == 2


@pytest.mark.usefixtures("no_pictures")
def test_optuna_reads_the_trials(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    trials, outcome = finished_sweep(tmp_path / "sweep")
    (longer,) = (index for index, each in enumerate(trials) if each.trial == "longer")
    trials[longer] = dataclasses.replace(trials[longer], dropout=0.25, weight_decay=None)
    points = [Point("longer", iters, 100 * iters, None, bits) for iters, bits in ((10, 2.5), (20, 2.0))]
    write_sweep(tmp_path / "sweep", trials, outcome, [*points, Point("longer", 15, 1500, 2.2, None)])
    for _ in range(2):  # the second report replaces the study
        write_report(tmp_path / "sweep")
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "sweep/report/optuna.log"))
    study = optuna.load_study(study_name="sweep", storage=optuna.storages.JournalStorage(backend))
    measured = [each for each in trials if each.purpose != "probe" and each.bits_per_byte]
    assert len(study.trials) == len(measured) > 5
    for found, expected in zip(study.trials, measured, strict=True):
        assert found.value == expected.bits_per_byte
        assert found.params["size"] == expected.size
        assert found.params["learning_rate"] == expected.learning_rate
        assert found.params["dropout"] == expected.dropout
        assert found.user_attrs["trial"] == expected.trial and found.user_attrs["flops"] == expected.flops
        assert found.state.name == "COMPLETE"
    assert study.best_value == min(each.bits_per_byte or 9 for each in measured)
    (found,) = (each for each in study.trials if each.user_attrs["trial"] == "longer")
    assert found.intermediate_values == {10: 2.5, 20: 2.0}
    assert found.params["weight_decay"] is None  # as `train` derives it
    assert "optimizer" not in found.params, "it was not varied"


@pytest.mark.usefixtures("no_pictures")
def test_text_tables_and_pictures_say_the_same_of_sizes_at_equal_cost(tmp_path: Path) -> None:
    trials, outcome = finished_sweep(tmp_path / "sweep")
    final = trials[-1]
    money = final.usd
    tokens = {size: int(1e12 * money / (6 * parameters(size))) for size in ("narrow", "middle", "wide")}
    tokens[final.size] = final.planned_tokens
    swept = [trial for trial in trials if trial.purpose == "sweep"]
    fit = fit_trials(swept, tokens)
    outcome = dataclasses.replace(outcome, final_tokens=tokens, decision=fit.decision, size=fit.best.size)
    write_sweep(tmp_path / "sweep", trials, outcome)
    page = Page(write_report(tmp_path / "sweep"))
    sweep = Report.read(tmp_path / "sweep")
    assert sweep.fit is not None and sweep.outlook is not None
    axis = figures.costs(sweep.fit, sweep.outlook, trials, [], outcome).axes[0]
    for size in fit.sizes:
        expected = f"{size.bits_per_byte.middle:.4f}"
        (row,) = (row for row in page.rows if row[0] == size.size)
        assert row[4] == f"{tokens[size.size]:,}" and row[6].startswith(expected)
        lines = [line for line in axis.lines if line.get_linestyle() == "-" and len(line.get_xdata())]
        ends = [line.get_xydata()[-1] for line in lines]  # type: ignore[index]
        assert any(f"{bits:.4f}" == expected and cost == pytest.approx(money) for cost, bits in ends)
    best, *_ = sorted(fit.sizes, key=lambda size: size.bits_per_byte.middle)
    assert f"it should reach {best.bits_per_byte.middle:.4f}" in page.text
    factors = [row[0].split(":")[0] for row in page.rows if " times: " in row[0]]
    assert factors == ["0.5 times", "1 times", "2 times", "5 times", "10 times"]
    dashed = [
        line.get_xdata() for line in axis.lines if line.get_linestyle() == "--" and len(line.get_xdata())
    ]
    assert [(x[0], x[-1]) for x in dashed] == [pytest.approx((money / 2, money * 10))] * 3


def test_tokens_of_a_cost_lie_between_those_of_runs() -> None:
    known = {10.0: 1000.0, 100.0: 15_000.0}
    assert figures.tokens_for(np.array([1.0, 10.0, 100.0, 1000.0]), known) == [100, 1000, 15_000, 150_000]
    (between,) = figures.tokens_for(np.array([31.6228]), known)
    assert between == pytest.approx(15_000_000**0.5, rel=0.01)


def test_a_stopped_trial_stands_at_its_loss(tmp_path: Path) -> None:
    trials, outcome = finished_sweep(tmp_path / "sweep")
    measured = sorted(
        trial.bits_per_byte for trial in trials if trial.bits_per_byte and trial.purpose == "sweep"
    )
    losses = {"low": measured[1], "high": 99.0, "none": None}
    stopped = [
        trial("middle", 0.001, 9000, bits, status="stopped", trial=name) for name, bits in losses.items()
    ]
    axes = figures.learning_rates(fit_trials([*trials, *stopped]), outcome).axes
    (crosses,) = (
        line for line in axes[1].lines if line.get_marker() == "x" and line.get_label() == "stopped"
    )
    top = axes[1].get_ylim()[1]
    assert sorted(crosses.get_ydata()) == [measured[1], top, top]


@pytest.mark.usefixtures("no_pictures")
def test_what_was_measured_on_is_said(tmp_path: Path) -> None:
    trials, outcome = finished_sweep(tmp_path / "sweep")
    part = dataclasses.replace(outcome, trial_share=0.2, actual_share=0.5, actual_error=0.0123)
    sampled = [
        dataclasses.replace(each, standard_error=(each.bits_per_byte or 0) * 0.03)
        for each in trials
        if each.bits_per_byte
    ]
    write_sweep(tmp_path / "sweep", sampled, part)
    text = Page(write_report(tmp_path / "sweep")).text
    assert "on 50% of the validation split (standard error 0.0123)" in text
    assert "20% of the validation split; their standard error, 3.0%" in text
    write_sweep(tmp_path / "sweep", trials, dataclasses.replace(outcome, trial_share=1.0, actual_share=1.0))
    text = Page(write_report(tmp_path / "sweep")).text
    assert "on the whole validation split" in text and "measured on all of them" in text


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("use_gpu", [True, False])
def test_without_gpus_no_hours_of_gpus_are_reported(tmp_path: Path, use_gpu: bool) -> None:
    trials, outcome = finished_sweep(tmp_path / "sweep", "gpu_hours")
    write_sweep(tmp_path / "sweep", trials, dataclasses.replace(outcome, use_gpu=use_gpu))
    assert ("GPU" in Page(write_report(tmp_path / "sweep")).text) == use_gpu


def test_loss_curves_are_drawn(tmp_path: Path) -> None:
    trials, outcome = finished_sweep(tmp_path / "sweep")
    before = figures.costs(None, None, trials, [], outcome)
    assert len(before.axes) == 1
    points = [
        Point(
            each.trial,
            step,
            each.tokens * step // 20,
            3 - step / 10,
            (3 - step / 10) if step % 10 == 0 else None,
        )
        for each in trials
        for step in range(21)
    ]
    write_rows(points, tmp_path / "sweep" / CURVES, Point)
    drawn = report._draw(Report.read(tmp_path / "sweep"))
    assert list(drawn) == list(PICTURES)
    curves = drawn["cost"].axes[1]
    assert len(curves.lines) == 2 * sum(each.purpose != "probe" and each.tokens > 0 for each in trials)
    drawn["cost"].canvas.draw()
