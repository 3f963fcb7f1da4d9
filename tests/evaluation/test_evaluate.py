"""The command `evaluate`."""

import json
import shutil
from pathlib import Path

import pytest

from nanochat_tct.cli import main
from nanochat_tct.data.store_writer import write_store
from nanochat_tct.model.gpt import GPT
from nanochat_tct.tokenizer import load_tokenizer
from tests.support.models import model_that_knows, save, untrained_model, workflow

TOKENIZER = load_tokenizer()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "store"
    write_store(folder, [workflow(index) for index in range(40)], TOKENIZER)
    return folder


@pytest.fixture(scope="module")
def model() -> GPT:
    return untrained_model()


@pytest.fixture(scope="module")
def checkpoint(model: GPT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(model, tmp_path_factory.mktemp("checkpoints") / "run")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a model that knows some of the workflows."""
    model = model_that_knows([workflow(index) for index in range(8)], TOKENIZER)
    return save(model, tmp_path_factory.mktemp("checkpoints") / "learned")


def evaluate(checkpoint: Path, data_dir: Path, *arguments: str) -> int:
    return main(["evaluate", "--checkpoint", str(checkpoint), "--data-dir", str(data_dir), *arguments])


def test_json(checkpoint: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(checkpoint, data_dir, "--num-samples", "4", "--max-tokens", "30", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["step"] == 5
    assert result["bits_per_byte"] > 0 and result["perplexity"] > 1
    assert result["samples"]["valid"] == 1.0
    assert result["samples"]["num_samples"] == 4
    assert 0 <= result["samples"]["completed_by_itself"] <= 1
    assert 0 <= result["samples"]["without_warning"] <= result["samples"]["valid"] == 1.0


def test_text(checkpoint: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(checkpoint, data_dir, "--num-samples", "2", "--max-tokens", "30") == 0
    printed = capsys.readouterr().out
    assert "bits per byte  " in printed and "2: 100% valid" in printed
    assert evaluate(checkpoint.parent, data_dir, "--num-samples", "0") == 0
    assert "valid" not in capsys.readouterr().out.split("bits per byte")[1]


def test_a_model_that_has_learned_is_better_and_ends_its_documents(
    data_dir: Path, checkpoint: Path, learned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = []
    for path in (checkpoint, learned):
        assert evaluate(path, data_dir, "--num-samples", "4", "--max-tokens", "200", "--json") == 0
        figures.append(json.loads(capsys.readouterr().out))
    assert figures[1]["bits_per_byte"] < figures[0]["bits_per_byte"] / 2
    assert figures[1]["samples"]["completed_by_itself"] == 1.0
    assert figures[1]["samples"]["valid"] == 1.0


def test_overlapping_windows_give_the_same_tokens_more_context(
    data_dir: Path, learned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {}
    for stride in (48, 8):
        arguments = ("--num-samples", "0", "--stride", str(stride), "--json")
        assert evaluate(learned, data_dir, *arguments) == 0
        figures[stride] = json.loads(capsys.readouterr().out)
    assert evaluate(learned, data_dir, "--num-samples", "0", "--json") == 0
    assert json.loads(capsys.readouterr().out) == figures[48]
    assert figures[8]["targets"] == figures[48]["targets"]
    assert figures[8]["bits_per_byte"] < figures[48]["bits_per_byte"]
    assert evaluate(learned, data_dir, "--num-samples", "0", "--stride", "8") == 0
    assert "windows of 48 tokens every 8" in capsys.readouterr().out


def test_wrong_use(
    model: GPT, checkpoint: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error_of(code: int) -> str:
        captured = capsys.readouterr()
        assert code == 2 and captured.out == ""
        assert len(captured.err.splitlines()) == 1, captured.err
        return captured.err

    assert "--checkpoint is missing" in error_of(main(["evaluate", "--data-dir", str(data_dir)]))
    assert "--data-dir is missing" in error_of(main(["evaluate", "--checkpoint", str(checkpoint)]))
    assert "--num-samples is -1" in error_of(evaluate(checkpoint, data_dir, "--num-samples", "-1"))
    assert "--batch-size is 0" in error_of(evaluate(checkpoint, data_dir, "--batch-size", "0"))
    assert "--stride 49 is more than the model's context of 48" in error_of(
        evaluate(checkpoint, data_dir, "--stride", "49")
    )
    assert str(tmp_path / "none") in error_of(evaluate(checkpoint, tmp_path / "none"))
    assert str(tmp_path / "none") in error_of(evaluate(tmp_path / "none", data_dir))

    other = save(model, tmp_path / "other", fingerprint="f" * 64)
    assert "was trained with tokenizer 'builtin' (ffffffffffff)" in error_of(evaluate(other, data_dir))

    class OtherTokenizer:
        """The built-in one under another name."""

        name, fingerprint = "another", "a" * 64
        vocab_size, pad_token, encode = TOKENIZER.vocab_size, TOKENIZER.pad_token, TOKENIZER.encode
        masks_of = TOKENIZER.masks_of

    write_store(tmp_path / "foreign", [workflow(index) for index in range(20)], OtherTokenizer())
    assert "was prepared with the tokenizer 'another'" in error_of(evaluate(checkpoint, tmp_path / "foreign"))

    damaged = shutil.copytree(checkpoint, tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "SHA-256" in error_of(evaluate(damaged, data_dir))
