"""TEMPORARY STAND-IN (bytes as tokens, no schema). The lead replaces it; write against the API only."""
import hashlib, json
from typing import Any
from nanochat_tct.errors import UserError

class TokenizerError(UserError):
    def __init__(self, pointer: str, problem: str) -> None:
        super().__init__(f"{pointer or '/'}: {problem}")
        self.pointer = pointer

END = 257

class Cursor:
    def __init__(self) -> None:
        self.is_complete = False
        self.bytes = bytearray()
    def allows(self, token: int) -> bool:
        return not self.is_complete and (token < 256 or token == END)
    def advance(self, token: int) -> None:
        if not self.allows(token):
            raise TokenizerError("", f"token {token} is not legal here")
        if token == END:
            self.is_complete = True
        else:
            self.bytes.append(token)

class Tokenizer:
    name = "builtin"
    fingerprint = hashlib.sha256(b"stand-in").hexdigest()
    def vocab_size(self) -> int: return 8192
    def pad_token(self) -> int: return 256
    def encode_value(self, value: Any) -> list[int]:
        if not isinstance(value, dict) or "jobs" not in value:
            raise TokenizerError("", "missing 'jobs'")
        return [*json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass"), END]
    def encode(self, json_str: str) -> list[int]:
        return self.encode_value(json.loads(json_str))
    def decode(self, tokens: list[int]) -> tuple[str, int, int]:
        tokens = list(tokens)
        if END not in tokens: raise TokenizerError("", "incomplete")
        i = tokens.index(END)
        return bytes(tokens[:i]).decode("utf-8", "surrogatepass"), i + 1, len(tokens)
    def decode_value(self, tokens: list[int]) -> Any:
        return json.loads(self.decode(tokens)[0])
    def decode_prefix(self, tokens: list[int]) -> tuple[str, int, bool]:
        try:
            return self.decode(tokens)[0], 1, True
        except ValueError:
            return '{"on":"push","jobs":{"build":{"runs-on":"ubuntu-latest","steps":[{"run":"true"}]}}}', 0, False
    def extract_window(self, tokens: list[int], start: int, end: int) -> list[int]:
        return [start, *tokens[start:end]]
    def cursor(self) -> Cursor: return Cursor()

def load_tokenizer(name: str = "builtin") -> Tokenizer: return Tokenizer()
_t = Tokenizer()
encode, decode, decode_prefix, extract_window, vocab_size, pad_token = _t.encode, _t.decode, _t.decode_prefix, _t.extract_window, _t.vocab_size, _t.pad_token
