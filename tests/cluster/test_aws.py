"""cluster/aws.py against moto's AWS: from an empty account to a file that the doctor and Ray take."""

import functools
import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from botocore.loaders import JSONFileLoader

from nanochat_tct.cluster_file import check_fields, read_cluster_file
from tests.support.cluster_files import path_of
from tests.support.commands import REPOSITORY

FLAGS = "--region us-east-1 --zone us-east-1a --bucket bucket-of-mine --cost-centre research".split()


@pytest.fixture(scope="module", autouse=True)
def service_models() -> Iterator[None]:
    """AWS's descriptions of its services are parsed once: moto has each test begin with a new session of boto3."""
    load = functools.cache(functools.partial(JSONFileLoader.load_file, JSONFileLoader()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda self, path: load(path))
        yield


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    spec = importlib.util.spec_from_file_location("cluster_aws", REPOSITORY / "cluster/aws.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PROPAGATION_SECONDS", 0)
    monkeypatch.setattr(module, "my_address", lambda: "203.0.113.7")
    from moto import mock_aws

    with mock_aws():
        yield module


@pytest.mark.parametrize("name", ["a100", "h100", "single-gpu"])
def test_an_empty_account_and_then_again(name: str, aws: Any, tmp_path: Path) -> None:
    path = Path(shutil.copy(path_of(name), tmp_path))
    assert aws.main([str(path), *FLAGS]) == 0
    filled = path.read_text()
    assert check_fields(read_cluster_file(path)) == "7 fields filled in"
    original = path_of(name).read_text().splitlines()
    changed = [old for old, new in zip(original, filled.splitlines(), strict=True) if old != new]
    assert all("FILL-IN" in line for line in changed)
    state = everything()
    assert aws.main([str(path), *FLAGS]) == 0
    assert path.read_text() == filled
    assert everything() == state


@pytest.mark.parametrize("cost_centre", ["4711", "machine learning", 'a "b" \\1', "0123 # no comment", "no"])
def test_whatever_the_cost_centre(cost_centre: str, aws: Any, tmp_path: Path) -> None:
    """It stays the text that was given, and a second run finds all of it."""
    path = Path(shutil.copy(path_of("single-gpu"), tmp_path))
    fields = {"cost_centre": cost_centre}
    for _ in range(2):
        assert aws.main([str(path), *FLAGS[:-1], cost_centre]) == 0
        assert check_fields(read_cluster_file(path)) == "7 fields filled in"
        assert read_cluster_file(path)["metadata"]["fill_in"].items() >= fields.items()
    assert "# a tag on every machine and disk, to assign costs" in path.read_text()


@pytest.mark.parametrize(
    "by_hand", ["machine learning", "'it''s # ours'", '"a \\" b"', "4711", "FILL-IN", "{Name: old}"]
)
def test_what_was_filled_in_by_hand_is_replaced(by_hand: str, aws: Any) -> None:
    text = f"metadata:\n  fill_in:\n    cost_centre: &cost_centre {by_hand} # who pays\n    next: 1\n"
    filled = aws.fill_in(text, {"cost_centre": '"new"'})
    assert yaml.safe_load(filled) == {"metadata": {"fill_in": {"cost_centre": "new", "next": 1}}}
    assert filled.splitlines()[2].endswith(' "new" # who pays')


def everything() -> Any:
    """What there is in the account, as far as this is about it."""
    ec2, iam = boto3.client("ec2", "us-east-1"), boto3.client("iam")
    groups = [g for g in ec2.describe_security_groups()["SecurityGroups"] if g["GroupName"] == "nanochat-tct"]
    roles = sorted(role["RoleName"] for role in iam.list_roles()["Roles"])
    profiles = iam.list_instance_profiles()["InstanceProfiles"]
    held = {p["InstanceProfileName"]: [role["RoleName"] for role in p["Roles"]] for p in profiles}
    buckets = [bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]]
    return json.loads(json.dumps([groups, roles, held, buckets], default=str))


def test_ssh_is_all_that_is_open(aws: Any, tmp_path: Path) -> None:
    path = Path(shutil.copy(path_of("a100"), tmp_path))
    assert aws.main([str(path), *FLAGS]) == 0
    (group,), _, held, buckets = everything()
    assert check_rules(group) == {("tcp", 22, "203.0.113.7/32"), ("-1", None, group["GroupId"])}
    assert group["GroupId"] in path.read_text()
    assert held == {
        "nanochat-tct-head": ["nanochat-tct-head"],
        "nanochat-tct-worker": ["nanochat-tct-worker"],
    }
    assert buckets == ["bucket-of-mine"]
    s3 = boto3.client("s3")
    block = s3.get_public_access_block(Bucket="bucket-of-mine")["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    assert {"Key": "cost-centre", "Value": "research"} in s3.get_bucket_tagging(Bucket="bucket-of-mine")[
        "TagSet"
    ]


def check_rules(group: dict[str, Any]) -> set[Any]:
    """Who may reach what, from outside."""
    rules = set()
    for rule in group["IpPermissions"]:
        sources = [each["CidrIp"] for each in rule["IpRanges"]]
        sources += [each["GroupId"] for each in rule["UserIdGroupPairs"]]
        assert rule.get("Ipv6Ranges", []) == []
        rules |= {(rule["IpProtocol"], rule.get("FromPort"), source) for source in sources}
    return rules


def test_what_the_roles_may_do(aws: Any, tmp_path: Path) -> None:
    """Workers: the bucket. The head: besides, start machines here, with the workers' role and no other."""
    path = Path(shutil.copy(path_of("single-gpu"), tmp_path))
    assert aws.main([str(path), *FLAGS]) == 0
    iam = boto3.client("iam")

    def actions(role: str) -> dict[str, Any]:
        policy = iam.get_role_policy(RoleName=role, PolicyName="nanochat-tct")["PolicyDocument"]
        found = {}
        for statement in policy["Statement"]:
            given = statement["Action"]
            for action in [given] if isinstance(given, str) else given:
                found[action] = statement
        return found

    worker, head = actions("nanochat-tct-worker"), actions("nanochat-tct-head")
    assert all(action.startswith("s3:") for action in worker)
    assert all("bucket-of-mine" in place for s in worker.values() for place in s["Resource"])
    assert set(head) - set(worker) == {
        *("ec2:Describe*", "ssm:GetParameters", "ec2:RunInstances", "ec2:CreateTags"),
        *("ec2:TerminateInstances", "iam:PassRole"),
    }
    assert head["iam:PassRole"]["Resource"].endswith(":role/nanochat-tct-worker")
    assert "ec2:ResourceTag/ray-cluster-name" in head["ec2:TerminateInstances"]["Condition"]["StringLike"]


def test_spot_machines_can_start_in_a_new_account(aws: Any, tmp_path: Path) -> None:
    """AWS starts them with a role of its own, which the head could not make."""
    path = Path(shutil.copy(path_of("single-gpu"), tmp_path))
    assert aws.main([str(path), *FLAGS]) == 0
    (role,) = boto3.client("iam").list_roles(PathPrefix="/aws-service-role/spot.amazonaws.com/")["Roles"]
    assert "spot.amazonaws.com" in str(role["AssumeRolePolicyDocument"])


@pytest.mark.parametrize(
    ("code", "message", "is_there"),
    [
        (
            "InvalidInput",
            "Service role name AWSServiceRoleForEC2Spot has been taken in this account, please try a different suffix.",
            True,
        ),
        ("InvalidInput", "Invalid service name", False),
        ("AccessDenied", "not authorized to perform: iam:CreateServiceLinkedRole", False),
    ],
)
def test_only_a_role_that_is_there_is_no_mistake(code: str, message: str, is_there: bool, aws: Any) -> None:
    """What AWS answers for one that is there; moto has another code for it."""

    class Iam:
        def create_service_linked_role(self, **given: str) -> None:
            assert given == {"AWSServiceName": "spot.amazonaws.com"}
            raise ClientError({"Error": {"Code": code, "Message": message}}, "CreateServiceLinkedRole")

    if is_there:
        aws.make_spot_role(Iam())
    else:
        with pytest.raises(ClientError, match=message):
            aws.make_spot_role(Iam())


def test_a_bucket_that_is_there_is_closed_and_tagged(aws: Any, tmp_path: Path) -> None:
    """As a run leaves it that ended after create_bucket; tags of its own stay."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="bucket-of-mine")
    s3.put_bucket_tagging(Bucket="bucket-of-mine", Tagging={"TagSet": [{"Key": "team", "Value": "a"}]})
    path = Path(shutil.copy(path_of("single-gpu"), tmp_path))
    assert aws.main([str(path), *FLAGS]) == 0
    block = s3.get_public_access_block(Bucket="bucket-of-mine")["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    tags = {tag["Key"]: tag["Value"] for tag in s3.get_bucket_tagging(Bucket="bucket-of-mine")["TagSet"]}
    assert tags == {"team": "a", "project": "nanochat-tct", "cost-centre": "research"}


def test_ssh_is_from_one_address(
    aws: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run from another one, that may use SSH, and the one before no longer."""
    path = Path(shutil.copy(path_of("single-gpu"), tmp_path))
    assert aws.main([str(path), *FLAGS]) == 0
    monkeypatch.setattr(aws, "my_address", lambda: "198.51.100.9")
    capsys.readouterr()
    assert aws.main([str(path), *FLAGS]) == 0
    told = capsys.readouterr().out
    assert "SSH is open to 198.51.100.9/32, and no longer to 203.0.113.7/32" in told
    (group,), *_ = everything()
    assert check_rules(group) == {("tcp", 22, "198.51.100.9/32"), ("-1", None, group["GroupId"])}


def test_mistakes_are_one_line(aws: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(shutil.copy(path_of("a100"), tmp_path))
    assert aws.main([str(path), *FLAGS[:2], "--zone", "us-east-1z", *FLAGS[4:]]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: no subnet in us-east-1z gives public addresses")
    assert len(told.splitlines()) == 1
    assert path.read_text() == path_of("a100").read_text()
