"""Numbers, names and folders that cannot be: refused in one line and at once, before Ray starts, or they work."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from nanochat_tct.cli import main
from nanochat_tct.config import parse_arguments, to_dict, write_yaml
from nanochat_tct.data.config import PrepareConfig
from nanochat_tct.errors import UserError
from nanochat_tct.evaluation.config import EvaluateConfig
from nanochat_tct.synthetic.config import SynthesizeConfig
from nanochat_tct.synthetic.synthesize import synthesize_folder
from nanochat_tct.training.config import TrainConfig
from nanochat_tct.training.plan import check_settings, make_plan
from nanochat_tct.tuning.config import SweepConfig
from nanochat_tct.tuning.tune import check as check_sweep
from tests.support.commands import assert_user_error, flags, run_cli, run_python
from tests.support.workers import train_alone

ABSURD = (
    0,
    -1,
    10**30,
    -(10**30),
    2**63,
    2**64,
    10**18,
    10**9,
    *"nan inf -inf 1e300 1e-300 5e-324 0.5".split(),
)
SECONDS = 1.0  # of the processor, for a refusal


def numeric(config_class: Any) -> list[str]:
    """The fields that take numbers."""
    hints = get_type_hints(config_class)
    kinds = {name: get_args(hint) or (hint,) for name, hint in hints.items()}
    return [name for name, kind in kinds.items() if {int, float} & set(kind)]


def refusal(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command ended."""
    begin = time.process_time()
    assert main(argv) == 2
    assert time.process_time() - begin < SECONDS, argv
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and len(error) < 600, error
    return error


def with_value(config_class: Any, name: str, value: object, **given: Any) -> Any:
    """A config as the command line makes it."""
    argv = [f"--{key.replace('_', '-')}={item}" for key, item in {**given, name: value}.items()]
    return parse_arguments(config_class, argv, "command", "")


def small_run(data_dir: Path, folder: Path) -> dict[str, Any]:
    folders = {"data_dir": data_dir, "checkpoint_dir": folder / "runs", "log_dir": folder / "logs"}
    length = {"max_iters": 2, "batch_size": 2, "num_workers": 1, "context_size": 16, "eval_iters": 1}
    return {**folders, **length, "n_layer": 1, "n_head": 1, "n_embd": 8, "num_samples": 0, "wandb": "off"}


def write_and_remove(config: SynthesizeConfig) -> None:
    if config.count != 10**9:  # which a large disk holds
        synthesize_folder(config)
        shutil.rmtree(config.output)


SWEEP = {"budget_flops": 3e11, "sizes": "1x32", "context_size": 32, "batch_size": 4, "wandb": "off"}
# What refuses absurd numbers of each kind of config, beyond its own checks, and what else is given.
CHECKS: dict[Any, tuple[Callable[[Any], object], Callable[[Path], dict[str, Any]]]] = {
    TrainConfig: (check_settings, lambda folder: small_run(folder, folder)),
    SweepConfig: (check_sweep, lambda folder: {**SWEEP, "output": folder / "sweep"}),
    EvaluateConfig: (lambda config: None, lambda folder: {"checkpoint": "x", "data_dir": "y"}),
    PrepareConfig: (
        PrepareConfig.limits,
        lambda folder: {"input": "x", "output": "y", "windowing": "per-document"},
    ),
    SynthesizeConfig: (write_and_remove, lambda folder: {"count": 2, "output": folder / "workflows"}),
}


def accepted(config_class: Any, name: str, folder: Path) -> list[Any]:
    """The absurd values that are not refused; a refusal is one line, and quick."""
    values = []
    check, given = CHECKS[config_class][0], CHECKS[config_class][1](folder)
    if config_class is SweepConfig and name in ("budget_usd", "budget_gpu_hours", "gpu_hourly_usd"):
        del given["budget_flops"]
        given |= {"budget_usd": {"gpu_hourly_usd": 2}, "gpu_hourly_usd": {"budget_usd": 1}}.get(name, {})
    for value in ABSURD:
        begin = time.process_time()
        try:
            config = with_value(config_class, name, value, **given)
            check(config)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 300, error
        else:
            values.append(getattr(config, name))
        assert time.process_time() - begin < SECONDS, (name, value)
    return values


@pytest.mark.parametrize(
    ("config_class", "name"),
    [(config_class, name) for config_class in CHECKS for name in numeric(config_class)],
)
def test_numbers(config_class: Any, name: str, tmp_path: Path) -> None:
    values = accepted(config_class, name, tmp_path)
    assert list(tmp_path.iterdir()) == []
    sizes = ("n_layer", "n_embd", "context_size", "batch_size", "gradient_accumulation", "num_workers")
    if config_class is TrainConfig and name in sizes:
        assert all(value < 10**6 for value in values), "no machine holds that"


@pytest.mark.parametrize("pick", [max, min])
def test_the_most_extreme_numbers_that_are_taken_train(
    pick: Callable[[list[Any]], Any], data_dir: Path, tmp_path: Path
) -> None:
    """All of them at once; a run that comes to nothing ends with one line."""
    names = """seed learning_rate min_lr weight_decay grad_clip max_grad_norm_ratio lr_decay_iters max_iters beta1
        beta2 dropout keep_checkpoints train_samples eval_iters max_bad_iters save_interval eval_interval
        gpu_hourly_usd cpu_hourly_usd log_interval"""
    extremes = {name: pick(accepted(TrainConfig, name, tmp_path)) for name in names.split()}
    given = {**small_run(data_dir, tmp_path), **extremes, "warmup_iters": 0, "log_interval": 1}
    config = make_plan(with_value(TrainConfig, "wandb", "off", **given)).config
    seen: list[dict[str, Any]] = []
    try:
        result = train_alone(
            config, progress=seen.append, stop_reason=lambda: "seen enough" if len(seen) > 1 else None
        )
    except UserError as error:
        assert "iters in a row without a finite" in str(error) and "\n" not in str(error)
    else:
        assert 1 <= result["step"] <= 3


@pytest.mark.parametrize(
    "given",
    [
        ["--seed", "18446744073709551616"],
        ["--seed", "-1"],
        ["--num-workers", "100000"],
        ["--n-layer", "1000000"],
        ["--batch-size", "1e12"],
        ["--batch-size", "auto", "--num-workers", "17"],
        ["--context-size", "1e9"],
        ["--gradient-accumulation", "1e15"],
        ["--learning-rate", "nan"],
        ["--wandb-project", "a/b"],
        ["--min-lr", "1"],
        ["--warmup-iters", "50", "--lr-decay-iters", "10"],
        ["--vocab-size", "100"],
        ["--beta2", "1"],
    ],
)
def test_before_ray_starts(
    given: list[str], data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = ["train", "--data-dir", str(data_dir), "--checkpoint-dir", str(tmp_path / "runs")]
    error = refusal([*begin, *given], capsys)
    assert given[0] in error or "this machine has" in error
    assert list(tmp_path.iterdir()) == []


def test_trials_that_could_only_wait_are_not_paid_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    command = ["tune", "--budget-gpu-hours", "1", "--output", str(tmp_path / "sweep")]
    most = 2 * len(os.sched_getaffinity(0))
    error = refusal([*command, "--concurrency", str(most + 1)], capsys)
    assert f"this machine runs {most} workers at a time" in error


NAMES = {
    "long": "x" * 300,
    "long in bytes": "ü" * 200,
    "with a slash": "a/b",
    "empty": "",
    "blank": " ",
    "the folder itself": ".",
    "the folder above": "..",
    "of two lines": "a\nb",
    "with a NUL": "a\0b",
    "not UTF-8": os.fsdecode(b"\xff\xfe"),
    "of a checkpoint": "iter_00000005",
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_runs(kind: str, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data-dir", str(data_dir), "--checkpoint-dir", str(tmp_path / "runs")]
    refusal(["train", *given, f"--run-name={NAMES[kind]}"], capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["--x", "größe 日本", "x" * 255, " a:b'\"c"])
def test_odd_names_of_runs_work(name: str, data_dir: Path, tmp_path: Path) -> None:
    config = make_plan(with_value(TrainConfig, "run_name", name, **small_run(data_dir, tmp_path))).config
    assert train_alone(config)["step"] == 2 and (tmp_path / "runs" / name / "iter_00000002").is_dir()
    write_yaml(config, tmp_path / "config.yaml")
    assert with_value(TrainConfig, "config", tmp_path / "config.yaml").run_name == name
    assert to_dict(config)["run_name"] == name


def a_file(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file"


FOLDERS: dict[str, Callable[[Path], str]] = {
    "a file": lambda folder: str(a_file(folder)),
    "through a file": lambda folder: str(a_file(folder) / "runs"),
    "a long name": lambda folder: str(folder / ("x" * 300)),
    "with a NUL": lambda folder: str(folder / "a\0b"),
    "not UTF-8": lambda folder: str(folder) + os.fsdecode(b"/\xff"),
    "a loop": lambda folder: str(a_loop(folder)),
    "in /proc": lambda folder: "/proc/nanochat",  # which takes nothing, even from root
    "/proc": lambda folder: "/proc",
    "in /sys": lambda folder: "/sys/nanochat",
}


def a_loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize(
    "command",
    [["train", "--checkpoint-dir"], ["train", "--log-dir"], ["tune", "--output"], ["synthesize", "--output"]],
    ids=lambda command: " ".join(command),
)
def test_folders_that_cannot_be(
    command: list[str], kind: str, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job, flag = command
    more = ["--data-dir", str(data_dir), "--checkpoint-dir", str(tmp_path / "runs")]
    more = {
        "tune": ["--data-dir", str(data_dir), "--budget-flops", "1e12"],
        "synthesize": ["--count", "1"],
    }.get(job, more)
    place = FOLDERS[kind](tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    error = refusal([job, *more, f"{flag}={place}"], capsys)
    assert flag in error
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    given = ["train", "--data-dir", str(data_dir), "--checkpoint-dir", str(tmp_path / "locked" / "runs")]
    assert "nothing can be written" in refusal(given, capsys)


def test_nothing_but_a_sweep_is_moved_aside(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_file(tmp_path)
    command = ["tune", *flags(**SWEEP, data_dir=data_dir, output=tmp_path, fresh=True)]
    assert "--fresh moves a sweep aside" in refusal(command, capsys)
    assert (tmp_path / "file").exists()


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": None},
    ],
    ids=["PYTHONIOENCODING", "LC_ALL"],
)
def test_any_encoding_of_the_terminal(environment: dict[str, str | None], tmp_path: Path) -> None:
    text = "name: größe 日本\non: push\njobs: {b: {runs-on: ubuntu-latest, steps: [{run: echo ✓}]}}\n"
    (tmp_path / "workflow.yml").write_text(text, encoding="utf-8")
    command = ("-m", "nanochat_tct.cli", "tokenize", "workflow.yml")
    result = run_python(*command, env=environment, cwd=tmp_path)
    assert result.code == 0 and "\\u2039" in result.stdout, result.stderr
    assert "Traceback" not in result.stderr


def test_an_error_in_any_encoding(tmp_path: Path) -> None:
    result = run_cli("tokenize", tmp_path / "größe.yml", env={"PYTHONIOENCODING": "ascii"}, cwd=tmp_path)
    assert_user_error(result, "gr")
