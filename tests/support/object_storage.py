"""An S3 server on loopback (moto's), which can be told to fail."""

import logging
import random
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

BUCKET = "bucket"


class ObjectStorage:
    """A running server with one bucket.

    Attributes:
        refuse: called with a request's method and path; an HTTP status answers it, None lets it through.
        before: called with the path and the header `Range` of each request ("" without one), before it is answered.
        requests: (method, path) of each request.
    """

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line for each request
        self.refuse: Callable[[str, str], int | None] = lambda method, path: None
        self.before: Callable[[str, str], None] = lambda path, byte_range: None
        self.requests: list[tuple[str, str]] = []
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """For processes that are to use it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def uri(self, path: str) -> str:
        """Of a folder in the bucket, for processes without this environment (Ray's, which have been there before)."""
        options = f"endpoint_override={self.endpoint.removeprefix('http://')}&scheme=http&region=us-east-1"
        return f"s3://testing:testing@{BUCKET}/{path}?{options}"

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def objects(self, prefix: str = "") -> dict[str, int]:
        """Sizes by key."""
        found = self.client().list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return {item["Key"]: item["Size"] for item in found}

    def close(self) -> None:
        self._server.shutdown()

    def _answer(self, environment: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path = environment["REQUEST_METHOD"], environment["PATH_INFO"]
        self.requests.append((method, path))
        self.before(path, environment.get("HTTP_RANGE", ""))
        status = self.refuse(method, path)
        if status is None:
            return self._moto(environment, start_response)
        # What S3 says: with a body, except to HEAD.
        code = {403: "AccessDenied", 503: "ServiceUnavailable"}[status]
        body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        if length := int(environment.get("CONTENT_LENGTH") or 0):
            environment["wsgi.input"].read(length)
        start_response(f"{status} {code}", [("Content-Type", "application/xml")])
        return [] if method == "HEAD" else [body]


class NowAndThen:
    """Answers a share of the requests with 503, the same at each run."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.failed = 0
        self._random = random.Random(1)

    def __call__(self, method: str, path: str) -> int | None:
        if self._random.random() >= self.share:
            return None
        self.failed += 1
        return 503


@contextmanager
def object_storage() -> Iterator[ObjectStorage]:
    """The server, with an empty bucket named BUCKET."""
    storage = ObjectStorage()
    try:
        # moto keeps its buckets in this process, whichever server made them
        reset = urllib.request.Request(f"{storage.endpoint}/moto-api/reset", method="POST")
        urllib.request.urlopen(reset, timeout=30).close()
        storage.client().create_bucket(Bucket=BUCKET)
        yield storage
    finally:
        storage.close()
