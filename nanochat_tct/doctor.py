"""`nanochat-tct doctor`: checks the set-up, and prints a line for each check, with what to do if it fails.

Each check imports what it needs itself, because an import may be what fails.
"""

import dataclasses
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat_tct.config import option
from nanochat_tct.documents import to_json, to_yaml
from nanochat_tct.errors import UserError

GIB = 2**30
MIN_GLIBC = (2, 28)  # required by the wheels of torch and Ray
MIN_DISK_BYTES = 2 * GIB
MIN_SHARED_MEMORY_BYTES = GIB // 2
TRAINING_WORKFLOWS = 60
EXAMPLE = {
    "name": "CI",
    "on": {"push": {"branches": ["main"]}, "pull_request": None},
    "permissions": {"contents": "read"},
    "jobs": {
        "test": {
            "runs-on": "ubuntu-latest",
            "strategy": {"matrix": {"python": ["3.12", "3.13"], "retries": [1, 1.0]}},
            "steps": [
                {"uses": "actions/checkout@v4"},
                {"uses": "actions/setup-python@v5", "with": {"python-version": "${{ matrix.python }}"}},
                {"name": "Tests ✓", "run": "pip install -e .\npytest\n"},
            ],
        }
    },
}


@dataclass(frozen=True)
class DoctorConfig:
    """The flags of `doctor`."""

    data_dir: str | None = option(None, "a token store to check too; none: skipped", is_path=True)
    tokenizer: str = option("builtin", "builtin, wheel, or a vocabulary file", is_path=True)
    train: bool = option(True, "train for 2 iters (the slowest check)")
    cluster: str | None = option(
        None, "a file for `ray up`: that is checked, and not this machine", is_path=True
    )


class Skipped(Exception):
    """Raised by a check that does not apply here."""


def check_python(config: DoctorConfig) -> str:
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        raise UserError(
            f"{platform.python_version()}; install Python 3.11, 3.12 or 3.13 and make .venv with it"
        )
    return f"{platform.python_version()} ({sys.executable})"


def check_glibc(config: DoctorConfig) -> str:
    library, version = platform.libc_ver()
    if library != "glibc":
        raise Skipped(f"{platform.system()} has no glibc")
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_GLIBC:
        wanted = ".".join(map(str, MIN_GLIBC))
        raise UserError(f"{version}, but torch and Ray need {wanted}; use a newer system or a container")
    return version


def check_disk(config: DoctorConfig) -> str:
    found = []
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        free = shutil.disk_usage(folder).free
        if free < MIN_DISK_BYTES:
            raise UserError(f"{free / GIB:.1f} GiB free in {folder}; free some, 2 GiB at least")
        found.append(f"{free / GIB:.0f} GiB free in {folder}")
    return ", ".join(found)


def check_shared_memory(config: DoctorConfig) -> str:
    folder = Path("/dev/shm")  # noqa: S108
    if not folder.is_dir():
        raise Skipped("no /dev/shm on this system")
    free = shutil.disk_usage(folder).free
    if free < MIN_SHARED_MEMORY_BYTES:
        raise UserError(
            f"{free / 2**20:.0f} MiB free in /dev/shm, where Ray and NCCL exchange data; "
            "give 512 MiB at least (in a container: docker run --shm-size=2g)"
        )
    return f"{free / GIB:.1f} GiB free in /dev/shm"


def check_torch(config: DoctorConfig) -> str:
    import torch

    devices = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        ones = torch.ones(64, 64, device=f"cuda:{index}", dtype=torch.bfloat16)
        assert (ones @ ones)[0, 0].item() == 64
        properties = torch.cuda.get_device_properties(index)
        devices.append(f"{properties.name} {properties.total_memory / GIB:.0f} GiB")
    if not devices and shutil.which("nvidia-smi"):
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise UserError(
            f"torch {torch.__version__} ({build}) sees no GPU, though nvidia-smi is here; update "
            "the driver, or install the build of torch that fits it (pytorch.org, Get Started)"
        )
    return f"{torch.__version__}, " + (", ".join(devices) or "no GPU: training runs on CPU")


def check_ray(config: DoctorConfig) -> str:
    from nanochat_tct.ray_session import start_ray

    start_ray()
    import ray

    try:
        assert ray.get(ray.remote(_double).remote(21), timeout=120) == 42
        resources = ray.cluster_resources()
        where = os.environ.get("RAY_ADDRESS") or "started here"
        return f"{ray.__version__}, {where}, {resources['CPU']:.0f} CPUs, {resources.get('GPU', 0):.0f} GPUs"
    finally:
        ray.shutdown()


def _double(number: int) -> int:
    return 2 * number


def _tokenizer(config: DoctorConfig) -> Any:
    from nanochat_tct.tokenizer import load_tokenizer

    return load_tokenizer(config.tokenizer)


def check_tokenizer(config: DoctorConfig) -> str:
    tokenizer = _tokenizer(config)
    if tokenizer.vocab_size() != 8192:
        raise UserError(
            f"{tokenizer.name} has {tokenizer.vocab_size()} tokens, not 8192; use another version"
        )
    return f"{tokenizer.name}, {tokenizer.vocab_size()} tokens, fingerprint {tokenizer.fingerprint[:12]}"


def check_wheel(config: DoctorConfig) -> str:
    if importlib.util.find_spec("tct_github_workflow") is None:
        raise Skipped("tct_github_workflow is not installed; the built-in tokenizer needs nothing")
    wheel = _tokenizer(dataclasses.replace(config, tokenizer="wheel"))
    text, _, _ = wheel.decode(wheel.encode(json.dumps(EXAMPLE)))
    if json.loads(text) != EXAMPLE:
        raise UserError(
            "tct_github_workflow changes a workflow that goes through it; use the built-in tokenizer"
        )
    return f"{wheel.name}, {wheel.vocab_size()} tokens; use it with --tokenizer wheel"


def check_round_trip(config: DoctorConfig) -> str:
    tokenizer = _tokenizer(config)
    text = to_json(EXAMPLE)
    tokens = tokenizer.encode(text)
    decoded, consumed, total = tokenizer.decode(tokens)
    # The wheel sorts keys; the built-in tokenizer keeps their order.
    is_same = json.loads(decoded) == EXAMPLE if config.tokenizer == "wheel" else decoded == text
    if not is_same or (consumed, total) != (len(tokens), len(tokens)):
        raise UserError(
            f"{tokenizer.name} changes a workflow that goes through it; install the package again"
        )
    return f"{len(text.encode())} bytes of JSON, {len(tokens)} tokens, and back unchanged"


def check_window(config: DoctorConfig) -> str:
    tokenizer = _tokenizer(config)
    tokens = tokenizer.encode(json.dumps(EXAMPLE))
    window = tokenizer.extract_window(tokens, 4, 12)
    if window != [4, *tokens[4:12]]:
        raise UserError(
            f"{window} is not a position followed by the tokens from there; use another tokenizer"
        )
    return f"position {window[0]}, then {len(window) - 1} tokens"


def check_tiktoken(config: DoctorConfig) -> str:
    from nanochat_tct.evaluation.tokens import compare_with_tiktoken

    text = to_json(EXAMPLE)
    line = compare_with_tiktoken(text, to_yaml(EXAMPLE), len(_tokenizer(config).encode(text)))
    if "no comparison" in line:
        raise Skipped(line)
    return line


def check_wandb(config: DoctorConfig) -> str:
    import wandb

    from nanochat_tct.tracking.tracker import wandb_mode

    mode = wandb_mode("auto")
    hint = {"offline": "; `wandb login` sends runs to wandb.ai", "off": ""}.get(mode, "")
    return f"{wandb.__version__}, {mode}{hint}"


def check_store(config: DoctorConfig) -> str:
    if config.data_dir is None:
        raise Skipped("--data-dir DIR checks a token store")
    from nanochat_tct.data.store import TokenStore

    store = TokenStore.open(config.data_dir)
    store.check_tokenizer(_tokenizer(config))
    return f"{config.data_dir}: {store.manifest['counts']['documents']:,} documents, {len(store.tokens):,} tokens"


def check_training(config: DoctorConfig) -> str:
    if not config.train:
        raise Skipped("--no-train")
    from nanochat_tct.data.store_writer import write_store
    from nanochat_tct.synthetic.synthesize import synthesize

    package = Path(__file__).resolve().parent.parent
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory(prefix="nanochat-tct-doctor-") as folder:
        data_dir = os.path.abspath(config.data_dir or f"{folder}/data")
        if config.data_dir is None:
            workflows = [synthesize(index, seed=0) for index in range(TRAINING_WORKFLOWS)]
            write_store(data_dir, workflows, _tokenizer(config))
        job = ["train", "--data-dir", data_dir, "--tokenizer", config.tokenizer]
        job += ["--max-iters", "2", "--num-samples", "0", "--wandb", "off"]
        result = subprocess.run(
            [sys.executable, "-m", "nanochat_tct.cli", *job],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    if result.returncode != 0:
        last = (result.stderr.strip() or result.stdout.strip() or "no output").splitlines()[-1]
        raise UserError(
            f"exit code {result.returncode}: {last.removeprefix('error: ')}; for all of it: "
            "nanochat-tct train --max-iters 2"
        )
    return "2 iters on two local workers"


CHECKS: dict[str, Callable[[DoctorConfig], str]] = {
    "Python": check_python,
    "glibc": check_glibc,
    "disk": check_disk,
    "shared memory": check_shared_memory,
    "torch": check_torch,
    "Ray": check_ray,
    "tokenizer": check_tokenizer,
    "tokenizer wheel": check_wheel,
    "round trip": check_round_trip,
    "window": check_window,
    "tiktoken": check_tiktoken,
    "W&B": check_wandb,
    "store": check_store,
    "training": check_training,
}


def run_check(check: Callable[[Any], str], subject: Any) -> tuple[str, str]:
    """Run one check. Returns "ok", "FAIL" or "skip", and a line with the result, or with what to do."""
    try:
        return "ok", check(subject)
    except Skipped as reason:
        return "skip", str(reason)
    except UserError as error:
        return "FAIL", str(error)
    except Exception as error:  # any other failure must not prevent the other checks
        return "FAIL", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def doctor(config: DoctorConfig) -> int:
    """Run all checks. Returns the exit code: 0 if none failed, otherwise 1."""
    checks: dict[str, Callable[[Any], str]] = CHECKS
    subject: Any = config
    if config.cluster is not None:
        from nanochat_tct.cluster_file import CLUSTER_CHECKS, read_cluster_file

        checks, subject = CLUSTER_CHECKS, read_cluster_file(config.cluster)
    failed = 0
    for name, check in checks.items():
        status, text = run_check(check, subject)
        print(f"{status:<4}  {name:<15}  {text}", flush=True)
        failed += status == "FAIL"
    print(f"{failed} of {len(checks)} checks failed" if failed else "all is well")
    return 1 if failed else 0
