"""`nanochat-tct doctor --cluster FILE`: checks that a cluster file is complete and safe, before it costs anything.

The files in cluster/ have one block of fields to fill in (`metadata.fill_in`; a ConfigMap in the KubeRay file), to
which the rest refers. The checks need no cloud, only the file, Ray's schema and this machine.
"""

import contextlib
import datetime
import importlib.metadata
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from nanochat_tct.errors import UserError
from nanochat_tct.ray_compat import validated_cluster
from nanochat_tct.ray_session import ensure_token

FILL_IN = "FILL-IN"
# Patterns and examples of fields, so that a wrong value is found before `ray up`.
PATTERNS = {
    "region": (r"[a-z]{2}(-[a-z]+)+-\d", "us-east-1"),
    "availability_zone": (r"[a-z]{2}(-[a-z]+)+-\d[a-z]", "us-east-1a"),
    "subnet": (r"subnet-[0-9a-f]+", "subnet-0123456789abcdef0"),
    "security_group": (r"sg-[0-9a-f]+", "sg-0123456789abcdef0"),
    "NANOCHAT_TCT_DATA": (r"\w+://.+", "s3://BUCKET/data/workflows"),
    "NANOCHAT_TCT_CHECKPOINTS": (r"\w+://.+", "s3://BUCKET/checkpoints"),
    "NANOCHAT_TCT_COST_CENTRE": (r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", "research"),
}
IMAGE = re.compile(r"rayproject/ray:(?P<version>[^-\s]+)-py(?P<python>\d+)")


def read_cluster_file(path: str | Path) -> dict[str, Any]:
    """Read a cluster file.

    Raises: UserError when it does not exist, or is not valid YAML.
    """
    try:
        content = yaml.safe_load(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"--cluster {path}: {(error.strerror or str(error)).lower()}") from error
    except yaml.YAMLError as error:
        raise UserError(f"--cluster {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content.keys() & {"provider", "items"}:
        raise UserError(f"--cluster {path} is not a cluster file; take one of cluster/ as it is")
    return content


def is_kuberay(content: dict[str, Any]) -> bool:
    """Whether a file is for Kubernetes and not for `ray up`."""
    return content.get("kind") == "List"


def cluster_spec(content: dict[str, Any]) -> dict[str, Any]:
    """The specification of the cluster in a file for Kubernetes, which is part of its job."""
    spec: dict[str, Any] = content["items"][1]["spec"]["rayClusterSpec"]
    return spec


def fields_to_fill(content: dict[str, Any]) -> dict[str, Any]:
    """The fields that the user has to fill in, by name.

    Raises: UserError when their block is missing.
    """
    try:
        fields = content["items"][0]["data"] if is_kuberay(content) else content["metadata"]["fill_in"]
        return dict(fields)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(
            "the block of fields to fill in is gone; take the file from cluster/ again"
        ) from error


def check_fields(content: dict[str, Any]) -> str:
    fields = fields_to_fill(content)
    missing = [name for name, value in fields.items() if any(FILL_IN in text for text in strings(value))]
    if missing:
        where = "the ConfigMap" if is_kuberay(content) else "metadata.fill_in"
        raise UserError(f"fill in {', '.join(missing)} (in {where}, at the top; docs/clusters.md says how)")
    for name, value in fields.items():
        if isinstance(value, bool | int | float | datetime.date):
            raise UserError(f'{name} is {value}, which is not text in YAML: put it in quotes, as in "4711"')
        pattern, example = PATTERNS.get(name, (".+", "a name"))
        if not all(re.fullmatch(pattern, text) for text in strings(value)) or not list(strings(value)):
            raise UserError(f"{name} is {value!r}; it must look like {example}")
    if "region" in fields and not fields["availability_zone"].startswith(fields["region"]):
        raise UserError(f"availability_zone {fields['availability_zone']} is not in {fields['region']}")
    return f"{len(fields)} fields filled in"


def check_schema(content: dict[str, Any]) -> str:
    if is_kuberay(content):
        kinds = [item.get("kind") for item in content["items"]]
        if kinds != ["ConfigMap", "RayJob"] or "rayClusterSpec" not in content["items"][1]["spec"]:
            raise UserError(f"the items are {kinds}; take the file from cluster/ again")
        return "; ".join(kinds)
    from jsonschema import ValidationError

    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            prepared = validated_cluster(content)  # prints advice, as `ray up` will do again
    except (ValidationError, ValueError, AssertionError) as error:
        message = getattr(error, "message", str(error))
        pointer = "/".join(str(part) for part in getattr(error, "path", ()))
        raise UserError(f"Ray does not take it: {pointer + ': ' if pointer else ''}{message}") from error
    return f"Ray takes it: {prepared['provider']['type']}, up to {prepared['max_workers']} workers"


def check_versions(content: dict[str, Any]) -> str:
    """The cluster must run the same version of Ray as this machine, or it refuses this machine's jobs."""
    version = importlib.metadata.version("ray")
    found = [match for text in strings(content) for match in IMAGE.finditer(text)]
    versions = {match["version"] for match in found}
    if is_kuberay(content):
        versions.add(cluster_spec(content)["rayVersion"])
    if versions != {version}:
        in_file = ", ".join(sorted(versions)) or "none"
        raise UserError(f"Ray {in_file} in the file, Ray {version} here; make them the same")
    return f"Ray {version}" + (f", Python {found[0]['python']}" if found else "")


def check_security(content: dict[str, Any]) -> str:
    if is_kuberay(content):
        if cluster_spec(content).get("authOptions") != {"mode": "token"}:
            raise UserError(
                "rayClusterSpec has no authOptions {mode: token}: whoever reaches a pod could run anything"
            )
        return "the operator makes the token"
    token = ensure_token()
    for kind in ("head", "worker"):
        key = f"{kind}_start_ray_commands"
        starts = [text for text in content.get(key, []) if "ray start" in text]
        if len(starts) != 1 or "RAY_AUTH_MODE=token" not in starts[0]:
            raise UserError(f"{key} lacks RAY_AUTH_MODE=token: whoever reaches a port could run anything")
        if kind == "head" and "--dashboard-host=127.0.0.1" not in starts[0]:
            raise UserError(f"{key} lacks --dashboard-host=127.0.0.1: the dashboard would be open")
    mode = token.stat().st_mode & 0o777
    if mode & 0o077:
        raise UserError(f"{token} can be read by others (mode {mode:o}): chmod 600 {token}")
    return f"dashboard on loopback, token in {token} for you only"


def check_mounts(content: dict[str, Any]) -> str:
    mounts = content.get("file_mounts", {})
    missing = [local for local in mounts.values() if not Path(local).expanduser().exists()]
    if missing:
        raise UserError(
            f"{', '.join(missing)}: not here; run this, and ray up, in the root of the repository"
        )
    return f"{len(mounts)} files and folders go to the machines" if mounts else "the image brings everything"


def check_account(content: dict[str, Any]) -> str:
    if content.get("provider", {}).get("type") != "aws":
        return "none needed"
    try:
        import boto3
    except ImportError as error:
        raise UserError("ray up needs boto3: pip install -c constraints.txt -e '.[aws]'") from error
    credentials = boto3.Session().get_credentials()
    if credentials is None:
        raise UserError("no AWS credentials: run aws configure (or aws sso login), or set AWS_PROFILE")
    return f"AWS credentials from {credentials.method}"


def strings(value: Any) -> Iterator[str]:
    """Yield all strings in a value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


CLUSTER_CHECKS: dict[str, Callable[[dict[str, Any]], str]] = {
    "fields": check_fields,
    "schema": check_schema,
    "versions": check_versions,
    "security": check_security,
    "files": check_mounts,
    "account": check_account,
}
