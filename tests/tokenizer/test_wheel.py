"""The adapter against a stand-in module: the wheel itself is on no index, so its API is what can be tested."""

import json
import sys
import types
from typing import Any

import pytest

from nanochat_tct import tokenizer as tokenizers
from nanochat_tct.errors import UserError
from nanochat_tct.generation import Completer
from nanochat_tct.generation.config import SamplingConfig
from nanochat_tct.generation.prompt import Prompt, encode_prompt
from nanochat_tct.tokenizer import TokenizerError, load_tokenizer, wheel
from nanochat_tct.tokenizer.wheel import WheelTokenizer
from tests.support.models import untrained_model


def stand_in() -> types.ModuleType:
    """A module with the wheel's six functions: JSON with sorted keys, a byte a token, 0 at the end."""
    module: Any = types.ModuleType(wheel.MODULE)
    module.__version__ = "1.0.5"

    def encode(json_str: str) -> list[int]:
        value = json.loads(json_str)
        if "jobs" not in value:
            raise RuntimeError("missing field `jobs`")
        return [*json.dumps(value, sort_keys=True, separators=(",", ":")).encode(), 0]

    def decode(tokens: list[int]) -> tuple[str, int, int]:
        if 0 not in tokens:
            raise RuntimeError("incomplete")
        end = tokens.index(0)
        return bytes(tokens[:end]).decode(), end + 1, len(tokens)

    def decode_prefix(tokens: list[int]) -> tuple[str, int, bool]:
        return (decode(tokens)[0], 2, True) if 0 in tokens else ('{"jobs":{},"on":"push"}', 0, False)

    module.encode, module.decode, module.decode_prefix = encode, decode, decode_prefix
    module.extract_window = lambda tokens, start, end: [start, *tokens[start:end]]
    module.vocab_size, module.pad_token = (lambda: 8192), (lambda: 8191)
    return module


@pytest.fixture(autouse=True)
def no_wheel_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test makes its own adapter; other tokenizers stay loaded."""
    load = tokenizers._load
    monkeypatch.setattr(
        tokenizers, "_load", lambda name: (load.__wrapped__ if name == "wheel" else load)(name)
    )


def test_config_name_wheel_uses_the_installed_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, wheel.MODULE, stand_in())
    tokenizer = load_tokenizer("wheel")
    assert isinstance(tokenizer, WheelTokenizer) and tokenizer.name == "wheel"
    assert (tokenizer.vocab_size(), tokenizer.pad_token()) == (8192, 8191)
    assert len(tokenizer.fingerprint) == 64 and tokenizer.fingerprint != load_tokenizer().fingerprint
    value = {"on": "push", "jobs": {"a": {"runs-on": "x"}}}
    tokens = tokenizer.encode_value(value)
    assert tokenizer.decode_value(tokens) == value
    assert tokenizer.decode([*tokens, 7])[1:] == (len(tokens), len(tokens) + 1)
    assert tokenizer.decode_prefix(tokens[:3]) == ('{"jobs":{},"on":"push"}', 0, False)
    assert tokenizer.extract_window(tokens, 1, 3) == [1, *tokens[1:3]]
    matcher = tokenizer.matcher()
    for token in tokens:
        assert matcher.allows(token) and not matcher.is_complete
        matcher.advance(token)
    assert matcher.is_complete and not matcher.allows(1)


def test_a_model_of_the_wheel_generates_and_does_not_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, wheel.MODULE, stand_in())
    completer = Completer.from_model(untrained_model(), load_tokenizer("wheel"))
    prompts = [Prompt(), encode_prompt("# ours\n", load_tokenizer("wheel"))]
    samples = list(completer.generate(prompts, SamplingConfig(max_tokens=5)))
    assert [sample.completed_by for sample in samples] == ["decode_prefix"] * 2
    assert [sample.text for sample in samples] == ["jobs: {}\non: push\n", "# ours\njobs: {}\non: push\n"]
    with pytest.raises(
        UserError, match="completions need a built-in tokenizer or a vocabulary file, not 'wheel'"
    ):
        completer.complete("on: push\n")


def test_errors_of_the_module_become_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, wheel.MODULE, stand_in())
    tokenizer = load_tokenizer("wheel")
    with pytest.raises(TokenizerError, match="missing field `jobs`"):
        tokenizer.encode("{}")
    with pytest.raises(TokenizerError, match="incomplete"):
        tokenizer.decode([1])
    with pytest.raises(TokenizerError, match="ends after"):
        tokenizer.decode_value([*tokenizer.encode('{"jobs":{}}'), 1])
    with pytest.raises(TokenizerError, match="builtin"):
        tokenizer.encode_prefix({})


def test_without_the_wheel_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, wheel.MODULE, None)
    with pytest.raises(UserError, match="use tokenizer: builtin"):
        load_tokenizer("wheel")


def test_another_package_of_that_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, wheel.MODULE, types.ModuleType(wheel.MODULE))
    with pytest.raises(UserError, match="this is not the workflow tokenizer"):
        load_tokenizer("wheel")
