"""The cluster files without a cloud: Ray's checks, AWS's service model, moto's AWS, the doctor."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from nanochat_tct import doctor as doctor_command
from nanochat_tct.cli import main
from nanochat_tct.cluster_file import cluster_spec, fields_to_fill, is_kuberay, read_cluster_file, strings
from nanochat_tct.doctor import DoctorConfig
from nanochat_tct.ray_compat import validated_cluster
from tests.support.cluster_files import ALL, AWS, FOR_RAY_UP, filled, original, path_of, start_commands
from tests.support.commands import REPOSITORY
from tests.test_setup import pins


def prepared(path: Path) -> dict[str, Any]:
    """A file as `ray up` completes it."""
    return validated_cluster(read_cluster_file(path))


@pytest.fixture
def doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Path], tuple[int, dict[str, str]]]:
    """Runs the doctor on a file, in a home of its own and with an AWS account: exit code, lines by name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.chdir(REPOSITORY)

    def run(path: Path) -> tuple[int, dict[str, str]]:
        code = doctor_command.doctor(DoctorConfig(cluster=str(path)))
        return code, {line[6:21].strip(): line for line in capsys.readouterr().out.splitlines()[:-1]}

    return run


Doctor = Callable[[Path], tuple[int, dict[str, str]]]


def failed(lines: dict[str, str]) -> list[str]:
    return [name for name, line in lines.items() if line.startswith("FAIL")]


@pytest.mark.parametrize("name", FOR_RAY_UP)
def test_ray_takes_them(name: str, tmp_path: Path) -> None:
    config = prepared(filled(name, tmp_path))
    assert config["cluster_name"] == f"nanochat-tct-{name}"
    assert config["idle_timeout_minutes"] == 10
    node_types = config["available_node_types"].values()
    assert max(kind["max_workers"] for kind in node_types) == {"single-gpu": 1, "local": 2}.get(name, 8)
    # All is there as it would be at AWS: nothing that Ray itself would add and run.
    given = original(name)
    for commands in ("initialization_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        assert config[commands] == given[commands]
    for kind in ("head", "worker"):
        wanted = given["setup_commands"] + given[f"{kind}_setup_commands"]
        assert config[f"{kind}_setup_commands"] == wanted


@pytest.mark.parametrize("name", AWS)
def test_ray_starts_head_and_workers_at_moto(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own bootstrap and node provider, against moto's AWS: the machines that one would pay for. boto3 refuses
    what is not in the service's model."""
    import boto3
    from moto import mock_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        client = boto3.client("ec2", "us-east-1")
        vpc = client.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = client.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24", AvailabilityZone="us-east-1a")
        subnet_id = subnet["Subnet"]["SubnetId"]
        client.modify_subnet_attribute(SubnetId=subnet_id, MapPublicIpOnLaunch={"Value": True})
        group = client.create_security_group(GroupName="g", Description="d", VpcId=vpc)["GroupId"]
        rules = client.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
        iam = boto3.client("iam", "us-east-1")
        for role in ("head", "worker"):
            iam.create_instance_profile(InstanceProfileName=f"nanochat-tct-{role}")
        from ray.autoscaler._private.aws import config as aws
        from ray.autoscaler._private.aws import utils

        utils.resource_cache.cache_clear()
        config = aws.bootstrap_aws(
            prepared(filled(name, tmp_path, {"subnet": subnet_id, "security_group": group}))
        )
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for kind, node_type in config["available_node_types"].items():
            provider.create_node(node_type["node_config"], {"ray-node-type": kind}, 1)
        found = client.describe_instances()["Reservations"]
        machines = {machine["InstanceType"]: machine for each in found for machine in each["Instances"]}
        worker_type = {"a100": "p4d.24xlarge", "h100": "p5.48xlarge", "single-gpu": "g6.xlarge"}[name]
        head_type = "m7i.large" if name == "single-gpu" else "m7i.xlarge"
        assert set(machines) == {head_type, worker_type}
        assert "InstanceLifecycle" not in machines[head_type], "the head is not on spot"
        assert machines[worker_type]["InstanceLifecycle"] == "spot"
        for kind, machine in machines.items():
            tags = {tag["Key"]: tag["Value"] for tag in machine["Tags"]}
            assert tags["cost-centre"] == "research"
            assert tags["ray-cluster-name"] == f"nanochat-tct-{name}"
            assert machine["SubnetId"] == subnet_id
            (interface,) = machine["NetworkInterfaces"]
            assert [each["GroupId"] for each in interface["Groups"]] == [group]
            role = "head" if kind == head_type else "worker"
            assert machine["IamInstanceProfile"]["Arn"].endswith(f"nanochat-tct-{role}")
        # Ray opened nothing: the group is the user's.
        groups = client.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
        assert {each["GroupName"] for each in groups["SecurityGroups"]} == {"g", "default"}
        assert (
            client.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"] == rules
        )
        key = Path(config["auth"]["ssh_private_key"])
        assert key.is_relative_to(tmp_path)
        assert key.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["a100", "h100"])
def test_efa_comes_with_its_libraries(name: str) -> None:
    """The installer runs in the container (a mount would bring no libibverbs), and NCCL says what it takes."""
    content = original(name)
    (install,) = content["worker_setup_commands"]
    assert re.search(r"aws-efa-installer-\d+\.\d+\.\d+\.tar\.gz", install)
    assert "--skip-kmod --skip-limit-conf --no-verify" in install
    options = [*content["docker"]["run_options"], *content["docker"]["worker_run_options"]]
    assert not [option for option in options if option.startswith("--volume=/opt/amazon")]
    assert {"--env=NCCL_DEBUG=INFO", "--env=NCCL_DEBUG_SUBSYS=NET"} <= set(options)


@pytest.mark.parametrize("name", ["a100", "h100"])
def test_without_efa_the_machine_is_used_and_says_so(name: str, tmp_path: Path) -> None:
    """A set-up that failed would be begun again on the next machine, and on the next."""
    (install,) = original(name)["worker_setup_commands"]
    for tool in ("sudo", "wget"):
        (tmp_path / tool).write_text("#!/bin/sh\nexit 4\n")
        (tmp_path / tool).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", install], env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout == "EFA was not installed: between machines NCCL will use TCP, which is slower\n"


@pytest.mark.parametrize("name", ALL)
def test_caches_and_spilled_objects_are_on_the_cache_disk(name: str) -> None:
    content = original(name)
    text = "\n".join(strings(content))
    if is_kuberay(content):
        groups = [
            cluster_spec(content)["headGroupSpec"],
            *cluster_spec(content)["workerGroupSpecs"],
        ]
        assert {group["rayStartParams"]["object-spilling-directory"] for group in groups} == {"/cache/spill"}
        (container,) = groups[1]["template"]["spec"]["containers"]
        text = "\n".join(f"{each['name']}={each['value']}" for each in container["env"])
    else:
        assert all(
            "--object-spilling-directory=/cache/spill" in start for start in start_commands(content).values()
        )
    for variable in (
        "NANOCHAT_TCT_CACHE=/cache",
        "TORCHINDUCTOR_CACHE_DIR=/cache/",
        "TRITON_CACHE_DIR=/cache/",
    ):
        assert variable in text


def test_kuberay_start_params_are_flags_of_ray_start() -> None:
    """The operator makes `ray start --NAME=VALUE` of them."""
    from ray.scripts.scripts import start

    known = {flag for option in start.params for flag in option.opts}
    spec = cluster_spec(original("kuberay"))
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert {f"--{name}" for name in group["rayStartParams"]} <= known


def test_kuberay_is_of_its_kinds(tmp_path: Path) -> None:
    content = read_cluster_file(filled("kuberay", tmp_path))
    values, job = content["items"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = cluster_spec(content)
    assert spec["rayVersion"] == pins()["ray"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    (workers,) = spec["workerGroupSpecs"]
    assert (workers["minReplicas"], workers["maxReplicas"]) == (0, 8)
    for group in (spec["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == values["data"]["NANOCHAT_TCT_IMAGE"]
        assert group["template"]["metadata"]["labels"]["cost-centre"] == "research"
        assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        assert container["resources"]["requests"] == container["resources"]["limits"]
    assert job["spec"]["backoffLimit"] > 0, "it starts again when it fails"
    assert "clusterSelector" not in job["spec"], "KubeRay refuses it beside backoffLimit"
    assert job["spec"]["shutdownAfterJobFinishes"] is True, "nothing costs when it is done"
    for name in re.findall(r"\$(\w+)", job["spec"]["entrypoint"]):
        assert name in values["data"]


def test_kuberay_fits_its_published_schema(tmp_path: Path) -> None:
    """Where KUBERAY_CRDS is the folder ray-operator/config/crd/bases of a checkout of KubeRay."""
    if "KUBERAY_CRDS" not in os.environ:
        pytest.skip("KUBERAY_CRDS is not set")
    item = read_cluster_file(filled("kuberay", tmp_path))["items"][1]
    path = Path(os.environ["KUBERAY_CRDS"]) / f"ray.io_{item['kind'].lower()}s.yaml"
    versions = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]["versions"]
    (schema,) = (version["schema"]["openAPIV3Schema"] for version in versions if version["name"] == "v1")
    schema = strict(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    assert [error.message for error in Draft202012Validator(schema).iter_errors(item)] == []
    item["spec"]["unknown"] = 1
    assert len(list(Draft202012Validator(schema).iter_errors(item))) == 1, "the check checks"


def strict(schema: Any) -> Any:
    """A Kubernetes schema as JSON Schema, without the leniency for unknown keys."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema


@pytest.mark.parametrize("name", ALL)
def test_fields_to_fill_are_in_one_place(name: str) -> None:
    """Nothing says FILL-IN elsewhere, and each field is used."""
    text = "\n".join(line.split(" #")[0] for line in path_of(name).read_text().splitlines())
    fields = fields_to_fill(original(name))
    assert text.count("FILL-IN") == len(fields)
    for anchor in re.findall(r"&(\w+) .*FILL-IN", text):
        assert f"*{anchor}" in text, anchor


@pytest.mark.parametrize("name", ALL)
def test_doctor_says_what_is_missing(name: str, doctor: Doctor) -> None:
    code, lines = doctor(path_of(name))
    assert code == 1
    assert failed(lines) == ["fields"], lines
    for field in fields_to_fill(original(name)):
        assert field in lines["fields"]


@pytest.mark.parametrize("name", ALL)
def test_doctor_is_content_with_a_filled_one(name: str, doctor: Doctor, tmp_path: Path) -> None:
    code, lines = doctor(filled(name, tmp_path))
    assert (code, failed(lines)) == (0, []), lines
    if name != "kuberay":
        token = tmp_path / ".ray/auth_token"
        assert token.stat().st_mode & 0o777 == 0o600
        before = token.read_text()
        assert len(before) == 64
        assert before not in str(lines)
        doctor(filled(name, tmp_path))
        assert token.read_text() == before, "made once"


@pytest.mark.parametrize(
    ("name", "old", "new", "check", "told"),
    [
        ("a100", "us-east-1a", "eu-west-1a", "fields", "availability_zone eu-west-1a is not in us-east-1"),
        ("a100", "sg-0123", "group-0123", "fields", "security_group is 'group-0123456789abcdef0'; it must"),
        (
            "a100",
            "2.60.0-py311-gpu",
            "2.9.0-py311-gpu",
            "versions",
            "Ray 2.60.0, 2.9.0 in the file, Ray 2.60.0",
        ),
        (
            "a100",
            "&cost_centre research",
            "&cost_centre 4711",
            "fields",
            'cost_centre is 4711, which is not text in YAML: put it in quotes, as in "4711"',
        ),
        (
            "kuberay",
            "COST_CENTRE: &cost_centre research",
            "COST_CENTRE: &cost_centre 2026-11-26",
            "fields",
            "is 2026-11-26, which is not text",
        ),
        ("h100", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "security", "would be open"),
        ("local", "RAY_AUTH_MODE=token", "", "security", "could run anything"),
        ("local", "upscaling_speed: 1.0", "upscaling: 1.0", "schema", "upscaling"),
        ("single-gpu", "pyproject.toml: pyproject.toml", "p.toml: none.toml", "files", "none.toml: not here"),
        ("kuberay", "authOptions: {mode: token}", "suspend: false", "security", "authOptions"),
        ("kuberay", "s3://bucket/checkpoints", "checkpoints", "fields", "NANOCHAT_TCT_CHECKPOINTS is"),
    ],
)
def test_doctor_finds(
    name: str, old: str, new: str, check: str, told: str, doctor: Doctor, tmp_path: Path
) -> None:
    path = filled(name, tmp_path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    code, lines = doctor(path)
    assert code == 1
    assert failed(lines) == [check], lines
    assert told in lines[check]


def test_doctor_refuses_a_token_that_others_read(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    token = tmp_path / ".ray/auth_token"
    token.write_text("secret")
    token.chmod(0o644)
    code, lines = doctor(filled("a100", tmp_path))
    assert code == 1
    assert lines["security"].endswith(f"{token} can be read by others (mode 644): chmod 600 {token}")


@pytest.mark.parametrize("content", [b"", b"a: [", b"- a", b"a: b", b"\x89PNG"])
def test_doctor_on_what_is_no_cluster_file(content: bytes, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    assert main(["doctor", "--cluster", str(path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: --cluster {path} is not ")
    assert len(told.splitlines()) == 1


def test_images_are_those_of_constraints() -> None:
    """Ray's version and a Python that the package takes, everywhere; the Dockerfile too."""
    texts = [text for name in ALL for text in strings(original(name))]
    texts.append((REPOSITORY / "cluster/Dockerfile").read_text())
    images = {image for text in texts for image in re.findall(r"rayproject/ray:\S+", text)}
    assert images == {f"rayproject/ray:{pins()['ray']}-py311-{kind}" for kind in ("cpu", "gpu")}


@pytest.mark.parametrize("name", FOR_RAY_UP)
def test_what_the_machines_get(name: str) -> None:
    """The package and the token, and nothing else of this folder; the commands install from constraints.txt."""
    content = original(name)
    ours = {local for local in content["file_mounts"].values() if not local.startswith("~")}
    assert ours == {"nanochat_tct", "pyproject.toml", "constraints.txt", "README.md"}
    assert content["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("pip install" in line and "constraints.txt" in line for line in content["setup_commands"])
    for start in start_commands(content).values():
        assert "RAY_AUTH_MODE=token" in start
        assert "0.0.0.0" not in start
