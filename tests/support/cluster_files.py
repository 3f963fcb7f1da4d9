"""The cluster files, filled in as a user would."""

from pathlib import Path
from typing import Any

import yaml

from nanochat_tct.cluster_file import is_kuberay, read_cluster_file
from tests.support.commands import REPOSITORY

AWS = ("a100", "h100", "single-gpu")
FOR_RAY_UP = (*AWS, "local")
ALL = (*FOR_RAY_UP, "kuberay")
VALUES = {
    "region": "us-east-1",
    "availability_zone": "us-east-1a",
    "subnet": "subnet-0123456789abcdef0",
    "security_group": "sg-0123456789abcdef0",
    "head_profile": {"Name": "nanochat-tct-head"},
    "worker_profile": {"Name": "nanochat-tct-worker"},
    "cost_centre": "research",
    "head_ip": "10.0.0.1",
    "worker_ips": ["10.0.0.2", "10.0.0.3"],
    "ssh_user": "somebody",
    "ssh_private_key": "~/.ssh/id_ed25519",
    "shared_folder": "--volume=/mnt/shared:/shared",
    "NANOCHAT_TCT_IMAGE": "registry.example.com/nanochat-tct:0.1.0",
    "NANOCHAT_TCT_SERVICE_ACCOUNT": "nanochat-tct",
    "NANOCHAT_TCT_DATA": "s3://bucket/data/workflows",
    "NANOCHAT_TCT_CHECKPOINTS": "s3://bucket/checkpoints",
    "NANOCHAT_TCT_COST_CENTRE": "research",
}


def path_of(name: str) -> Path:
    return REPOSITORY / "cluster" / f"{name}.yaml"


def original(name: str) -> dict[str, Any]:
    """A file as it lies in the repository."""
    return read_cluster_file(path_of(name))


def filled(name: str, folder: Path, values: dict[str, Any] | None = None) -> Path:
    """A copy of a file with its fields filled in, line by line, as with an editor."""
    values = {**VALUES, **(values or {})}
    lines = []
    for line in path_of(name).read_text().splitlines():
        if "FILL-IN" in line and not line.lstrip().startswith("#"):
            key, _, rest = line.partition(": ")
            anchor = rest.split()[0] + " " if rest.startswith("&") else ""
            text = yaml.safe_dump(values[key.strip()], default_flow_style=True).splitlines()[0]
            line = f"{key}: {anchor}{text}"
        lines.append(line)
    path = folder / f"{name}.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def start_commands(content: dict[str, Any]) -> dict[str, str]:
    """The commands that start Ray on the head and on a worker."""
    assert not is_kuberay(content)
    found = {}
    for kind in ("head", "worker"):
        (found[kind],) = (text for text in content[f"{kind}_start_ray_commands"] if "ray start" in text)
    return found
