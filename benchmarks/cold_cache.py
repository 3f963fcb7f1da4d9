"""How soon a worker has its first windows of a store in object storage of which its machine has nothing.

    python benchmarks/cold_cache.py --data-dir STORE [--batch 64 --batches 20 --megabytes-per-second 100]

STORE is a folder that `prepare` wrote (`benchmarks/prepare.py --keep` keeps large ones). A small server on this machine
answers for it as S3 does. New processes open it, each with an empty cache, and take random batches of windows, as
training does:

- local: the store on this disk, which is the floor;
- growing: what training does: the tokens come meanwhile, and what a batch needs and is missing is fetched at once;
- whole first: the whole store is copied before the first batch.

Prints the seconds to the first batch, to the last one, and until the whole store is there, with ratios to `local` and
to `whole first`. `--megabytes-per-second` is what the server sends at most, over all requests.
"""

import argparse
import http.server
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

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
    parser.add_argument("--megabytes-per-second", type=float, default=100.0)
    options = parser.parse_args()
    server = multiprocessing.get_context("spawn")
    ports = server.Queue()
    process = server.Process(
        target=serve, args=(options.data_dir, options.megabytes_per_second, ports), daemon=True
    )
    process.start()
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports.get(timeout=60)}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        measured = {mode: measure(mode, options, environment) for mode in MODES}
    finally:
        process.kill()
    num_bytes = sum(each.stat().st_size for each in Path(options.data_dir).iterdir())
    print(f"{num_bytes / 1e6:,.0f} MB, {options.batches} batches of {options.batch} windows")
    print("| store | first batch | last batch | all of it |\n| --- | --- | --- | --- |")
    for mode, seconds in measured.items():
        print(f"| {mode} | {' | '.join(f'{each:.2f} s' for each in seconds)} |")
    for other in ("local", "whole first"):
        ratios = [a / b for a, b in zip(measured["growing"], measured[other], strict=True)]
        print(f"| growing / {other} | {' | '.join(f'{each:.2f}' for each in ratios)} |")


def serve(folder: str, megabytes_per_second: float, ports: Any) -> None:
    """Answer HEAD and GET for the objects `bucket/store/NAME`, and put the server's port into a queue."""
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:  # as http.server wants it
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            path = Path(folder, self.path.split("?")[0].rpartition("/")[2])
            if not path.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            size, wanted = path.stat().st_size, self.headers.get("Range", "")
            begin, last = map(int, wanted.removeprefix("bytes=").split("-")) if wanted else (0, size - 1)
            last = min(last, size - 1)
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(last + 1 - begin))
            self.send_header("Content-Range", f"bytes {begin}-{last}/{size}")
            self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
            self.send_header("ETag", '"0"')
            self.end_headers()
            if with_body:
                with open(path, "rb") as file:
                    file.seek(begin)
                    content = file.read(last + 1 - begin)
                with lock:  # one line to the network
                    time.sleep(len(content) / megabytes_per_second / 1e6)
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ports.put(server.server_port)
    server.serve_forever()


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
