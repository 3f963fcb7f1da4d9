"""Create the AWS resources that cluster/a100.yaml, h100.yaml and single-gpu.yaml refer to, and fill in a file.

    python cluster/aws.py cluster/a100.yaml --region us-east-1 --bucket MY-BUCKET --cost-centre research

Creates what is missing: the bucket (private, encrypted), a security group (only SSH from one address, and all traffic
among its members), two roles (the head's may start machines; the workers' may only use the bucket), and the role that
AWS itself needs for spot machines. This costs nothing by itself. Running it again changes only what is missing; from
another address, SSH is open to that address instead of the previous one. An existing bucket is closed to the public
and tagged too.
"""

import argparse
import json
import re
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

NAME = "nanochat-tct"
# A value in a cluster file, up to a comment: {...}, "...", '...', or plain
VALUE = r"""\{[^}]*\}|"(?:[^"\\\n]|\\.)*"|'(?:[^'\n]|'')*'|\S.*?(?=[ \t]+\#|[ \t]*$)"""
TRUST = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="cluster file to fill in")
    parser.add_argument("--region", required=True, help="us-east-1")
    parser.add_argument("--zone", help="us-east-1a; default: the first zone that has the file's workers")
    parser.add_argument("--bucket", required=True, help="name of the bucket for data and checkpoints")
    parser.add_argument("--cost-centre", required=True, help="a tag on everything, to assign costs")
    parser.add_argument("--ssh-from", help="addresses that may use SSH, as 203.0.113.7/32; default: yours")
    given = parser.parse_args(arguments)
    try:
        fields = set_up(given)
    except (BotoCoreError, ClientError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    given.file.write_text(fill_in(given.file.read_text(), fields))
    print(f"filled in {given.file}: " + ", ".join(f"{name} {value}" for name, value in fields.items()))
    return 0


def set_up(given: argparse.Namespace) -> dict[str, str]:
    """Create everything. Return the fields of the cluster file."""
    session = boto3.Session(region_name=given.region)
    ec2 = session.client("ec2")
    worker_type = re.findall(r"InstanceType: (\S+)", given.file.read_text())[-1]
    zone = given.zone or first_zone(ec2, worker_type)
    tags = [{"Key": "project", "Value": NAME}, {"Key": "cost-centre", "Value": given.cost_centre}]
    make_bucket(session.client("s3"), given.bucket, given.region, tags)
    subnets = ec2.describe_subnets(
        Filters=[
            {"Name": "availability-zone", "Values": [zone]},
            {"Name": "map-public-ip-on-launch", "Values": ["true"]},
        ]
    )["Subnets"]
    if not subnets:
        raise OSError(
            f"no subnet in {zone} gives public addresses; create the default ones: aws ec2 create-default-vpc"
        )
    subnet = sorted(subnets, key=lambda each: not each["DefaultForAz"])[0]
    group = make_security_group(ec2, subnet["VpcId"], given.ssh_from or f"{my_address()}/32", tags)
    iam = session.client("iam")
    account = session.client("sts").get_caller_identity()["Account"]
    make_role(iam, f"{NAME}-worker", [use_bucket(given.bucket)], tags)
    worker_role = f"arn:aws:iam::{account}:role/{NAME}-worker"
    make_role(
        iam, f"{NAME}-head", [use_bucket(given.bucket), *start_workers(worker_role, given.region)], tags
    )
    make_spot_role(iam)
    return {
        "region": given.region,
        "availability_zone": zone,
        "subnet": subnet["SubnetId"],
        "security_group": group,
        "head_profile": f"{{Name: {NAME}-head}}",
        "worker_profile": f"{{Name: {NAME}-worker}}",
        "cost_centre": json.dumps(given.cost_centre, ensure_ascii=False),  # YAML reads 4711 as a number
    }


def fill_in(text: str, fields: dict[str, str]) -> str:
    """Fill in the fields of a cluster file, also those that have a value already; leave everything else as it is."""
    for name, value in fields.items():
        found = re.search(rf"^    {name}: &\w+ ({VALUE})", text, flags=re.MULTILINE)
        if found is None:
            raise OSError(f"the file has no field {name}; take it from the repository again")
        text = text[: found.start(1)] + value + text[found.end(1) :]
    return text


def first_zone(ec2: Any, instance_type: str) -> str:
    offers = ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [instance_type]}]
    )["InstanceTypeOfferings"]
    if not offers:
        raise OSError(f"{instance_type} is not offered in this region; take another --region")
    return min(offer["Location"] for offer in offers)


def my_address() -> str:
    with urllib.request.urlopen("https://checkip.amazonaws.com", timeout=10) as answer:
        return answer.read().decode().strip()


def make_bucket(s3: Any, name: str, region: str, tags: list[dict[str, str]]) -> None:
    """Create a private bucket. An existing one, perhaps half-finished, becomes private and keeps its other tags."""
    try:
        s3.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
        location = (
            {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        )
        s3.create_bucket(Bucket=name, **location)
    s3.put_public_access_block(
        Bucket=name,
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )
    try:
        present = s3.get_bucket_tagging(Bucket=name)["TagSet"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchTagSet":
            raise
        present = []
    ours = {tag["Key"] for tag in tags}
    others = [tag for tag in present if tag["Key"] not in ours]
    s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": [*others, *tags]})


def make_security_group(ec2: Any, vpc: str, ssh_from: str, tags: list[dict[str, str]]) -> str:
    """Admit SSH from `ssh_from` only, and all traffic among members in both directions (EFA needs explicit egress)."""
    found = ec2.describe_security_groups(
        Filters=[{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": [NAME]}]
    )["SecurityGroups"]
    if found:
        group = found[0]["GroupId"]
    else:
        group = ec2.create_security_group(
            GroupName=NAME,
            Description="SSH from one address, everything between members",
            VpcId=vpc,
            TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
        )["GroupId"]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": ssh_from}]}
    members = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
    for authorize, rules in (
        (ec2.authorize_security_group_ingress, [ssh]),
        (ec2.authorize_security_group_ingress, [members]),
        (ec2.authorize_security_group_egress, [members]),
    ):
        try:
            authorize(GroupId=group, IpPermissions=rules)
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidPermission.Duplicate":
                raise
    for rule in ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]:
        is_ssh = all(rule.get(key) == ssh[key] for key in ("IpProtocol", "FromPort", "ToPort"))
        older = [each["CidrIp"] for each in rule["IpRanges"] if each["CidrIp"] != ssh_from]
        if is_ssh and older:
            ranges = [{"CidrIp": address} for address in older]
            ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[{**ssh, "IpRanges": ranges}])
            print(f"SSH is open to {ssh_from}, and no longer to {', '.join(older)}")
    return group


def use_bucket(bucket: str) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Action": [
            "s3:ListBucket",
            "s3:GetObject",
            "s3:PutObject",
            "s3:DeleteObject",
            "s3:AbortMultipartUpload",
        ],
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }


def start_workers(worker_role: str, region: str) -> list[dict[str, Any]]:
    """Allow Ray's autoscaler on the head to start and end machines, only with the workers' role."""
    only_here = {"StringEquals": {"aws:RequestedRegion": region}}
    ours = {"StringLike": {"ec2:ResourceTag/ray-cluster-name": f"{NAME}-*"}}
    return [
        {"Effect": "Allow", "Action": ["ec2:Describe*", "ssm:GetParameters"], "Resource": "*"},
        {
            "Effect": "Allow",
            "Action": ["ec2:RunInstances", "ec2:CreateTags"],
            "Resource": "*",
            "Condition": only_here,
        },
        {"Effect": "Allow", "Action": "ec2:TerminateInstances", "Resource": "*", "Condition": ours},
        {"Effect": "Allow", "Action": "iam:PassRole", "Resource": worker_role},
    ]


def make_role(iam: Any, name: str, statements: list[dict[str, Any]], tags: list[dict[str, str]]) -> None:
    """Create a role with its permissions, and the instance profile of the same name."""
    is_new = False
    version = "2012-10-17"
    try:
        trust = json.dumps({"Version": version, "Statement": [TRUST]})
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, Tags=tags)
    except iam.exceptions.EntityAlreadyExistsException:
        pass
    policy = json.dumps({"Version": version, "Statement": statements})
    iam.put_role_policy(RoleName=name, PolicyName=NAME, PolicyDocument=policy)
    try:
        iam.create_instance_profile(InstanceProfileName=name)
        is_new = True
    except iam.exceptions.EntityAlreadyExistsException:
        pass
    if not iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]:
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    if is_new:
        time.sleep(PROPAGATION_SECONDS)


def make_spot_role(iam: Any) -> None:
    """Create the role with which AWS starts spot machines; a new account lacks it, and the head may not create it."""
    try:
        iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")
    except ClientError as error:  # boto3 has no narrower error for an existing role
        details = error.response["Error"]
        if details["Code"] != "EntityAlreadyExists" and "has been taken" not in details.get("Message", ""):
            raise


PROPAGATION_SECONDS = 10  # until EC2 sees a new profile

if __name__ == "__main__":
    sys.exit(main())
