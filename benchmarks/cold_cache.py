"""How soon a worker has its first windows of a store in object storage of which its machine has nothing.

    python benchmarks/cold_cache.py --data-dir STORE [--batch 64 --batches 20]

STORE is a folder that `prepare` wrote (`benchmarks/prepare.py --keep` keeps large ones). It is uploaded to an S3 server
on this machine (moto's). Then new processes open it, each with an empty cache of its own but the first one, and take
random batches of windows, as training does:

- local: the store on this disk, which is the floor;
- growing: what training does: the tokens come meanwhile, and what a batch needs and is missing is fetched at once;
- whole first: the whole store is copied before the first batch.

Prints the seconds to the first batch, to the last one, and until the whole store is there, with ratios to `local` and
to `whole first`. The server is slow (a Python process on the same cores), so only the ratios carry over.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODES = ("local", "growing", "whole first")
WORKER = """
import json, sys, time
from nanochat_tct.data.sampler import WindowSampler
from nanochat_tct.data.store import TokenStore
from nanochat_tct.data.windows import Windows

place, is_whole, batch, batches = sys.argv[1], sys.argv[2] == "True", int(sys.argv[3]), int(sys.argv[4])
begin = time.perf_counter()
store = TokenStore.open(place, verify=False, is_whole=is_whole)
rest = store.complete()
windows = Windows(store, "train", 512)
sampler, seconds = WindowSampler(len(windows), 0), []
for step in range(batches):
    windows.get_masked(sampler.indices(step, batch))
    seconds.append(time.perf_counter() - begin)
rest.result()
print(json.dumps([seconds[0], seconds[-1], time.perf_counter() - begin]))
"""


def main() -> None:
    """Parse the arguments, start the server, and measure each way to open the store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="a folder that `prepare` wrote")
    parser.add_argument("--batch", type=int, default=64, help="windows of a batch")
    parser.add_argument("--batches", type=int, default=20)
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        environment = {
            **os.environ,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        wait_for(port)
        upload = (
            "import sys; from pathlib import Path; from nanochat_tct.data.store import upload_store; "
            "from boto3 import client; client('s3').create_bucket(Bucket='bucket'); "
            "upload_store(Path(sys.argv[1]), 's3://bucket/store')"
        )
        subprocess.run([sys.executable, "-c", upload, options.data_dir], env=environment, check=True)
        measured = {mode: measure(mode, options, environment) for mode in MODES}
    finally:
        server.kill()
    num_bytes = sum(each.stat().st_size for each in Path(options.data_dir).iterdir())
    print(f"{num_bytes / 1e6:,.0f} MB, {options.batches} batches of {options.batch} windows")
    print("| store | first batch | last batch | all of it |\n| --- | --- | --- | --- |")
    for mode, seconds in measured.items():
        print(f"| {mode} | {' | '.join(f'{each:.2f} s' for each in seconds)} |")
    for other in ("local", "whole first"):
        ratios = [a / b for a, b in zip(measured["growing"], measured[other], strict=True)]
        print(f"| growing / {other} | {' | '.join(f'{each:.2f}' for each in ratios)} |")


def wait_for(port: int) -> None:
    """Wait until a server answers."""
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=10).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the S3 server did not start: pip install 'moto[server]'")


def measure(mode: str, options: argparse.Namespace, environment: dict[str, str]) -> list[float]:
    """Seconds to the first batch, to the last one, and until all of the store is there."""
    place = options.data_dir if mode == "local" else "s3://bucket/store"
    arguments = [place, str(mode != "growing"), str(options.batch), str(options.batches)]
    with tempfile.TemporaryDirectory() as cache:
        result = subprocess.run(
            [sys.executable, "-c", WORKER, *arguments],
            env={**environment, "NANOCHAT_TCT_CACHE": cache},
            stdout=subprocess.PIPE,
            check=True,
        )
    seconds: list[float] = json.loads(result.stdout)
    return seconds


if __name__ == "__main__":
    main()
