import dataclasses
import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nanochat_tct import foreign_names
from nanochat_tct.cli import COMMANDS
from nanochat_tct.config import (
    REQUIRED,
    convert,
    option,
    parse_arguments,
    read_config_file,
    settings_of,
    to_dict,
    write_yaml,
)
from nanochat_tct.data.config import PrepareConfig
from nanochat_tct.errors import UserError
from nanochat_tct.evaluation.config import EvaluateConfig
from nanochat_tct.generation.config import GenerateConfig
from nanochat_tct.training.config import TrainConfig, resolve
from nanochat_tct.tuning.config import SweepConfig


@dataclass(frozen=True)
class Example:
    input: list[str] = option(REQUIRED, "what to read", positional=True)
    max_iters: int = option(100, "length", unit="iters")
    learning_rate: float = option(3e-4, "peak, 100% of it")
    use_gpu: bool = option(False, "on GPUs")
    compile: bool = option(True, "compile")
    run_name: str | None = option(None, "name")
    parallel: str = option("ddp", "how", choices=("ddp", "fsdp"))
    betas: tuple[float, ...] = option((0.9, 0.95), "of Adam")
    seed: int | None = option(0, "seed")
    most: int = option(2, "upper end", low="least")
    least: int | None = option(None, "lower end")
    vary: dict[str, list[Any]] = option({}, "lists by name")
    output: str | None = option(None, "where to", is_path=True)
    folders: list[str] = option([], "where from", is_path=True)

    def __post_init__(self) -> None:
        if self.max_iters < 1:
            raise UserError(f"--max-iters is {self.max_iters}: it must be at least 1")


def parse(*argv: str) -> Example:
    return parse_arguments(Example, list(argv), "example", "An example.")


def test_defaults() -> None:
    assert parse("a") == Example(input=["a"])


def test_every_kind_of_flag() -> None:
    flags = (
        "--max-iters 1e3 --learning-rate .5 --use-gpu --no-compile --run-name x --parallel fsdp --betas 0 1"
    )
    assert parse("a", "b", *flags.split()) == Example(
        ["a", "b"], 1000, 0.5, True, False, "x", "fsdp", (0.0, 1.0), 0
    )
    assert parse("a", "--seed", "none").seed is None
    assert parse("a", "--learning-rate=-1").learning_rate == -1
    assert parse("a", "--learning-rate", "-1").learning_rate == -1


def test_lists_by_name(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("input: a\nvary: {betas: [0.9, 1], seed: 3}\n")
    assert parse("a").vary == {}
    assert parse("--config", str(file)).vary == {"betas": [0.9, 1], "seed": [3]}
    given = parse("a", "--vary", "betas=0.9,1", "run_name=x=y", "betas=2")
    assert given.vary == {"betas": ["0.9", "1", "2"], "run_name": ["x=y"]}
    write_yaml(given, file)
    assert parse("--config", str(file)) == given
    for wrong in ("betas", "7"):
        with pytest.raises(UserError, match="--vary must be name=value,value"):
            parse("a", "--vary", wrong)
    assert convert("1e-3", settings_of(Example)["learning_rate"], "here") == 1e-3
    with pytest.raises(UserError, match="here must be one of ddp, fsdp, not 'dp'; did you mean ddp"):
        convert("dp", settings_of(Example)["parallel"], "here")


def test_a_range_sets_two_fields(tmp_path: Path) -> None:
    def ends(*argv: str) -> tuple[int | None, int]:
        config = parse("a", *argv)
        return config.least, config.most

    file = tmp_path / "run.yaml"
    file.write_text("input: a\nmost: [1, 4]\n")
    assert ends() == (None, 2) and ends("--most", "3") == (None, 3) and ends("--most", "2:4") == (2, 4)
    assert ends("--config", str(file)) == (1, 4) and ends("--config", str(file), "--most", "3") == (None, 3)
    assert ends("--most", "3", "--least", "2") == (2, 3)
    write_yaml(parse("a", "--most", "2:4"), file)
    assert ends("--config", str(file)) == (2, 4)
    for wrong in ("1:2:3", "x", "1:", "1:x"):
        with pytest.raises(UserError, match="--most"):
            ends("--most", wrong)


def test_file_then_flags(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "input: a\nmax_iters: 7\nlearning_rate: 3e-5\nrun_name: off\nbetas: [0.5, 1]\nuse_gpu: true\n"
    )
    expected = Example(["a"], 7, 3e-5, True, run_name="off", betas=(0.5, 1.0))
    assert parse("--config", str(file)) == expected
    changed = parse("b", "--config", str(file), "--max-iters", "8", "--no-use-gpu")
    assert (changed.input, changed.max_iters, changed.use_gpu, changed.run_name) == (["b"], 8, False, "off")


def test_python_file_is_read_and_not_executed(tmp_path: Path) -> None:
    file = tmp_path / "config.py"
    file.write_text(
        '"""A run."""\n# comment\nmax_iters = 7\nseed: int = 3\nbetas = (0.5, 1)\nrun_name = None\n'
    )
    assert parse("a", "--config", str(file)) == Example(["a"], 7, betas=(0.5, 1.0), seed=3)
    marker = tmp_path / "marker"
    for line in (
        f"open({str(marker)!r}, 'w')",
        f"max_iters = len(open({str(marker)!r}, 'w').name)",
        "a = b = 1",
    ):
        file.write_text(f"seed = 1\n{line}\n")
        with pytest.raises(UserError, match=r"config.py line 2: only `name = literal`"):
            parse("a", "--config", str(file))
    assert not marker.exists()


def test_written_config_reads_back(tmp_path: Path) -> None:
    config = parse("a: b", "--learning-rate", "1e-5", "--run-name", "007", "--seed", "none")
    write_yaml(config, tmp_path / "run.yaml")
    assert parse("--config", str(tmp_path / "run.yaml")) == config
    assert to_dict(config)["betas"] == [0.9, 0.95]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            "a --max-iter 5",
            "unknown flag --max-iter; did you mean --max-iters? (see nanochat-tct example --help)",
        ),
        ("a --nonsense", "unknown flag --nonsense (see"),
        ("a --max-iters six", "--max-iters must be a whole number, not 'six'"),
        ("a --max-iters 1.5", "--max-iters must be a whole number, not '1.5'"),
        ("a --max-iters 0", "--max-iters is 0: it must be at least 1"),
        ("a --max-iters none", "--max-iters must be a whole number, not 'none'"),
        ("a --max-iters", "argument --max-iters: expected one argument"),
        ("a --learning-rate nan", "--learning-rate must be a number, not 'nan'"),
        ("a --parallel fdsp", "--parallel must be one of ddp, fsdp, not 'fdsp'; did you mean fsdp?"),
        ("a --use-gpu=maybe", "ignored explicit argument 'maybe'"),
        ("--max-iters 5", "INPUT is missing: what to read"),
        ("a --config missing.yaml", "cannot read the config file missing.yaml: No such file or directory"),
    ],
)
def test_wrong_use_of_flags(argv: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        parse(*argv.split())
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_iter: 5", "unknown key 'max_iter' in {file}; did you mean max_iters?"),
        ("max-iters: 5", "unknown key 'max-iters' in {file}; did you mean max_iters?"),
        ("max_iters: six", "'max_iters' in {file} must be a whole number, not 'six'"),
        ("max_iters: true", "'max_iters' in {file} must be a whole number, not True"),
        ("max_iters: [5]", "'max_iters' in {file} must be a whole number, not [5]"),
        ("max_iters:", "'max_iters' in {file} must be a whole number, and is empty"),
        ("use_gpu: yes", "'use_gpu' in {file} must be true or false, not 'yes'"),
        ("run_name: 1.10", "'run_name' in {file} must be text, not 1.1"),
        ("betas: [x]", "'betas' in {file} must be a number, not 'x'"),
        ("- max_iters", "{file}: the document is a list"),
        ("max_iters: 5\nmax_iters: 6", "the key 'max_iters' stands twice"),
        ("max_iters: [5", "{file}: line 2"),
    ],
)
def test_wrong_use_of_files(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as raised:
        parse("a", "--config", str(file))
    assert message.format(file=file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("# nothing yet\n")
    assert read_config_file(tmp_path / "run.yaml") == {}


def test_help_tells_unit_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse("--help")
    assert stopped.value.code == 0
    help = " ".join(capsys.readouterr().out.split())
    for part in (
        "INPUT what to read (required)",
        "--max-iters N length [iters] (default: 100)",
        "--learning-rate X peak, 100% of it (default: 0.0003)",
        "--use-gpu, --no-use-gpu on GPUs (default: no)",
        "--run-name TEXT name (default: none)",
        "--parallel {ddp,fsdp} how (default: ddp)",
        "of Adam (default: 0.9 0.95)",
        "--seed N seed (default: 0)",
        "--config FILE",
    ):
        assert part in help


def test_home_is_expanded_in_flags_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "run.yaml"
    config.write_text("input: ~/a\noutput: ~/b\nfolders: [~/c, '~', s3://bucket/~/d, e~/f]\n")
    for argument in ("--config=~/run.yaml", f"--config={config}"):
        given = parse(argument)
        assert given.input == ["~/a"], "it is not said to be a path"
        assert given.output == f"{tmp_path}/b"
        assert given.folders == [f"{tmp_path}/c", str(tmp_path), "s3://bucket/~/d", "e~/f"]
    assert parse("a", "--output=~/x").output == f"{tmp_path}/x"
    assert parse("a", "--output", "~root/x").output == "/root/x"
    assert convert("~/x", settings_of(Example)["output"], "there") == f"{tmp_path}/x"
    (tmp_path / "config.py").write_text("output = '~/y'\n")
    assert parse("a", "--config", "config.py").output == f"{tmp_path}/y"
    with pytest.raises(
        UserError, match=r"--output ~nobody-here/x: there is no user of that name; write \./~nobody"
    ):
        parse("a", "--output=~nobody-here/x")
    (tmp_path / "~odd.yml").touch()
    assert parse("a", "--output", "~odd.yml").output == "~odd.yml", "there is such a file"


PATH_WORDS = re.compile(
    r"\b(file|files|folder|folders|directory|directories|dir|checkpoint|store|image|URIs?)\b"
)


CONFIGS = {name: command.config for name, command in COMMANDS.items()}
CONFIGS["report"] = "tuning.report:ReportConfig"


@pytest.mark.parametrize("name", CONFIGS)
def test_every_option_that_takes_a_path_expands_home(name: str) -> None:
    module, config = CONFIGS[name].split(":")
    for field in dataclasses.fields(getattr(importlib.import_module(f"nanochat_tct.{module}"), config)):
        text = f"{field.name.replace('_', ' ')} {field.metadata['help']}"
        if "str" in str(field.type) and not field.metadata["choices"] and PATH_WORDS.search(text):
            assert field.metadata["is_path"] or field.name in {"run_name", "wandb_run_name", "vary"}, (
                field.name
            )


NANOGPT = """
out_dir = 'out-shakespeare-char'
eval_interval = 250
always_save_checkpoint = False
wandb_log = False
wandb_project = 'shakespeare-char'
wandb_run_name = 'mini-gpt'
dataset = 'shakespeare_char'
gradient_accumulation_steps = 1
batch_size = 64
block_size = 256
device = 'cpu'
dtype = 'bfloat16'
compile = 1
backend = 'nccl'
"""


def test_a_config_of_nanogpt_leads_to_our_names(tmp_path: Path) -> None:
    file = tmp_path / "config.py"
    file.write_text(NANOGPT)
    with pytest.raises(UserError) as raised:
        parse_arguments(TrainConfig, ["--config", str(file)], "train", "")
    message = str(raised.value)
    assert message.startswith(f"unknown keys in {file}: 'out_dir': did you mean checkpoint_dir (")
    for part in (
        "'always_save_checkpoint': did you mean save_interval?",
        "'wandb_log': did you mean wandb (auto, online, offline or off)?",
        "'dataset': did you mean data_dir (",
        "'gradient_accumulation_steps': did you mean gradient_accumulation (",
        "'block_size': did you mean context_size?",
        "'device': did you mean use_gpu (true or false)?",
        "'dtype': did you mean precision (bf16 or fp32)?",
        "'backend'; leave it out",
    ):
        assert part in message, part
    assert "\n" not in message
    file.write_text("compile = 1\nwandb_run_name = 'mini-gpt'\nbatch_size = 64\nuse_gpu = 0\n")
    config = parse_arguments(TrainConfig, ["--config", str(file)], "train", "")
    assert (config.compile, config.use_gpu) == (True, False)
    resolved = resolve(config, 8192)
    assert (resolved.run_name, resolved.wandb_run_name) == ("mini-gpt", "mini-gpt")
    both = dataclasses.replace(config, run_name="a")
    assert (resolve(both, 8192).run_name, resolve(both, 8192).wandb_run_name) == ("a", "mini-gpt")
    with pytest.raises(UserError, match="must be the name of a folder"):
        resolve(dataclasses.replace(config, wandb_run_name="a/b"), 8192)


# ours: those of other trainers
THEIRS = """context_size: block_size n_ctx max_seq_len max_position_embeddings; n_embd: hidden_size d_model;
    n_layer: num_hidden_layers depth; n_head: num_attention_heads; learning_rate: lr; warmup_iters: warmup_steps;
    max_iters: max_steps num_train_epochs num_iterations; grad_clip: max_grad_norm; beta1: adam_beta1;
    batch_size: per_device_train_batch_size device_batch_size; eval_interval: eval_steps; save_interval: save_steps;
    log_interval: logging_steps; checkpoint_dir: output_dir; keep_checkpoints: save_total_limit; precision: fp16;
    checkpoint_activations: gradient_checkpointing; compile: torch_compile; num_workers: nproc_per_node;
    resume: resume_from_checkpoint; wandb: report_to"""
PAIRS = [
    (own.strip(), name)
    for own, names in (each.split(":") for each in THEIRS.split(";"))
    for name in names.split()
]


@pytest.mark.parametrize(("own", "theirs"), PAIRS)
def test_names_of_other_trainers_lead_to_ours(tmp_path: Path, theirs: str, own: str) -> None:
    (tmp_path / "run.yaml").write_text(f"{theirs}: 5\n")
    flag = "--" + own.replace("_", "-")
    for argv, name in (
        (["--config", str(tmp_path / "run.yaml")], own),
        ([f"--{theirs}", "5"], flag),
        ([f"--{theirs.replace('_', '-')}=5"], flag),
    ):
        with pytest.raises(UserError, match=rf"^unknown .*; did you mean {name}( \(.*\))?\?( \(see .*)?$"):
            parse_arguments(TrainConfig, argv, "train", "")


def test_every_hint_leads_to_a_setting_and_no_name_is_ours() -> None:
    commands = (TrainConfig, SweepConfig, PrepareConfig, GenerateConfig, EvaluateConfig)
    known = {field.name for config in commands for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    assert set(foreign_names.NAMES) <= known
    assert set(foreign_names.NOTES) <= set(foreign_names.NAMES)
    train = {field.name for field in dataclasses.fields(TrainConfig)}
    for own, names in foreign_names.NAMES.items():
        if own in train:
            assert not train & set(names.split()), own


def test_closeness_of_letters_is_not_closeness_of_meaning() -> None:
    for name in ("block_count", "vocab", "step_size", "max_chars"):
        with pytest.raises(UserError) as raised:
            parse_arguments(TrainConfig, [f"--{name}", "5"], "train", "")
        assert "did you mean" not in str(raised.value), name
    with pytest.raises(
        UserError, match=r"unknown flags: --block_count, --lr: did you mean --learning-rate\?"
    ):
        parse_arguments(TrainConfig, ["--block_count", "5", "--lr", "1"], "train", "")
    with pytest.raises(UserError, match="ignored explicit argument 'False'; give one of the two flags"):
        parse_arguments(TrainConfig, ["--compile=False"], "train", "")
