"""The whole pipeline over TLS and through a proxy, under Amazon's names, against an S3 as strict as Amazon's."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import certifi
import pytest
from botocore.config import Config

from sandbox.strict_s3 import Demands, StrictS3
from tests.commands import run
from tests.pipeline.conftest import UP_TO_RECORDINGS, MakeWorld, Store, World

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


OWNER = "123456789012"
KEY = "1234abcd-12ab-34cd-56ef-1234567890ab"
TINY = {"calls_per_day": (2, 3)}
FINE = {200, 204, 206, 404, 412}


@dataclass
class StrictBucket:
    """A bucket of the strict S3 with an archive on it."""

    server: StrictS3
    bucket: str
    make_world: MakeWorld
    client: Callable[..., S3Client]

    def open(self, *, region: str | None, sandbox: dict[str, Any] | None = None, **variables: str) -> World:
        """The world, whose variables name the bucket and the region (AWS_REGION alone, or nothing)."""
        self.server.answered.clear()
        store = Store(self.server.environment(region=region) | variables, self.client(), own_client=True)
        bucket = variables.get("ARCHIVE_BUCKET", self.bucket)
        return self.make_world(store=store, bucket=bucket, sandbox=TINY | (sandbox or {}))

    def refused(self) -> list[tuple[str, str, int, str]]:
        """What was not answered as a good client is answered."""
        return [
            (request.method, request.host, request.status, request.code)
            for request in self.server.answered
            if request.status not in FINE
        ]


@pytest.fixture
def strict_bucket(strict_server: StrictS3, make_world: MakeWorld) -> Iterator[Callable[..., StrictBucket]]:
    """`place(region="eu-central-1", locked=True, demands=Demands(…))`."""

    def make(region: str = "eu-central-1", **arguments: Any) -> StrictBucket:
        name = strict_server.make_bucket(f"archive-{uuid.uuid4().hex[:12]}", region=region, **arguments).name

        def client() -> S3Client:
            s3_client = boto3.client(
                "s3",
                region_name=region,
                aws_access_key_id=strict_server.keys.forever.id,
                aws_secret_access_key=strict_server.keys.forever.secret,
                verify=str(strict_server.authority.file),
                config=Config(proxies={"https": strict_server.proxy_url}),
            )
            if (demands := arguments.get("demands")) and demands.owner:
                s3_client.meta.events.register(
                    "before-parameter-build.s3",
                    lambda params, model, **_: params.update(
                        {"ExpectedBucketOwner": OWNER} if "ExpectedBucketOwner" in model.input_shape.members else {}
                    ),
                )
            return s3_client

        return StrictBucket(strict_server, name, make_world, client)

    yield make
    strict_server.obey()


@pytest.fixture
def day(recent: list[date]) -> date:
    return recent[0]


def stored(world: World, day: date) -> None:
    hashes = sorted(world.objects(f"recordings/date={day}/").values())
    expected = sorted(recording["sha256"] for recording in world.truth(day))
    assert expected
    assert hashes == expected


def archived(world: World, day: date) -> None:
    """One run of a date, after which each recording is stored, and `verify` finds nothing."""
    result = world.run(day)
    assert result.success, world.failures(result)
    stored(world, day)
    around = ["--from", str(day), "--to", str(day), "--read-data"]
    assert run("verify", around) == 0


def test_with_aws_region_alone_a_date_is_archived_outside_us_east_1_and_the_check_agrees(
    strict_bucket: Callable[..., StrictBucket], day: date, capsys: pytest.CaptureFixture[str]
) -> None:
    here = strict_bucket("eu-central-1")
    world = here.open(region="eu-central-1")
    archived(world, day)
    assert run("check", [], backoff_s=0.01) == 0, capsys.readouterr().out
    assert here.refused() == []
    assert {request.host for request in here.server.answered} == {f"{here.bucket}.s3.eu-central-1.amazonaws.com"}
    assert all(request.secure for request in here.server.answered)


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1", None])
def test_a_bucket_in_another_region_than_the_one_configured_works_and_is_named(
    strict_bucket: Callable[..., StrictBucket], day: date, region: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    here = strict_bucket("ap-southeast-2")
    world = here.open(region=region)
    with caplog.at_level(logging.INFO):
        archived(world, day)
    assert len(here.refused()) <= 8, "a client that is told the region asks there from then on"
    if region is not None:
        assert "ap-southeast-2" in caplog.text


def test_on_a_bucket_that_locks_encrypts_and_forbids_a_date_is_archived_and_the_check_agrees(
    strict_bucket: Callable[..., StrictBucket], day: date, capsys: pytest.CaptureFixture[str]
) -> None:
    demands = Demands(
        kms_key=KEY, owner=True, tls=True, denied=frozenset({"s3:DeleteObject", "s3:DeleteObjectVersion"})
    )
    here = strict_bucket("eu-central-1", locked=True, demands=demands)
    here.client().put_object_lock_configuration(
        Bucket=here.bucket,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 30}},
        },
    )
    world = here.open(region="eu-central-1", ARCHIVE_KMS_KEY_ID=KEY, ARCHIVE_EXPECTED_BUCKET_OWNER=OWNER)
    archived(world, day)
    assert run("check", [], backoff_s=0.01) == 0, capsys.readouterr().out
    assert {(method, code) for method, _, _, code in here.refused()} <= {("DELETE", "AccessDenied")}
    archived(world, day)
    pages = here.client().get_paginator("list_object_versions").paginate(Bucket=here.bucket, Prefix="recordings/")
    versions = [version["Key"] for page in pages for version in page.get("Versions", [])]
    assert len(versions) == len(set(versions)), "nothing is written over"


@pytest.mark.slow
def test_large_recordings_go_in_parts_are_create_only_and_end_as_one_object(
    strict_bucket: Callable[..., StrictBucket], day: date
) -> None:
    here = strict_bucket("eu-central-1", locked=True)
    # Two parts of mono, three of stereo.
    large = {"calls_per_day": (1, 1), "talk_seconds": (540, 560), "crossing_zones": ()}
    world = here.open(region="eu-central-1", sandbox=large)
    here.server.fail("InternalError", method="POST", under="recordings/", subresource="uploadId", after=True)
    here.server.fail("SlowDown", method="PUT", under="recordings/", subresource="partNumber", times=2)
    archived(world, day)
    completed = [
        request for request in here.server.answered if request.method == "POST" and "uploadId" in request.query
    ]
    assert completed
    assert all(request.headers["if-none-match"] == "*" for request in completed)
    assert "Uploads" not in here.client().list_multipart_uploads(Bucket=here.bucket)


def test_what_s3_asks_to_do_later_or_again_is_done_in_the_same_run(
    strict_bucket: Callable[..., StrictBucket], day: date
) -> None:
    here = strict_bucket("eu-central-1")
    world = here.open(region="eu-central-1")
    for code in ("SlowDown", "InternalError", "hang up", "ConditionalRequestConflict"):
        here.server.fail(code, method="PUT", under="recordings/")
    here.server.fail("hang up", method="PUT", under="recordings/", after=True)
    here.server.fail("InternalError", method="GET", times=2)
    archived(world, day)


@pytest.mark.parametrize("way", ["web identity", "ecs", "role"])
def test_credentials_that_expire_during_a_run_are_renewed(
    strict_bucket: Callable[..., StrictBucket], day: date, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = strict_bucket("eu-central-1")
    identity = here.server.identity
    monkeypatch.setattr(identity, "lifetime", timedelta(seconds=2))
    identity.issued.clear()
    found = identity.environment(way, tmp_path / "aws")
    world = here.open(
        region="eu-central-1",
        sandbox={"calls_per_day": (1, 1), "crossing_zones": ()},
        AWS_ACCESS_KEY_ID="",
        AWS_SECRET_ACCESS_KEY="",
        AWS_EC2_METADATA_DISABLED="false",
        **found,
    )
    # They are so short-lived that every request asks for new ones; a manifest more would show nothing more.
    result = world.run(day, select=UP_TO_RECORDINGS)
    assert result.success, world.failures(result)
    stored(world, day)
    assert identity.issued.total() >= 2, "they were asked for once and never renewed"


WRONG: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "a policy that wants KMS": ({"demands": Demands(kms_key=KEY)}, {}, "s3:PutObject"),
    "another owner": ({}, {"ARCHIVE_EXPECTED_BUCKET_OWNER": "210987654321"}, "S3 refused"),
    "no such bucket": ({}, {"ARCHIVE_BUCKET": "nobody-has-this-one"}, "ARCHIVE_BUCKET"),
    "an unknown CA": ({}, {"AWS_CA_BUNDLE": certifi.where()}, "AWS_CA_BUNDLE"),
    "a wrong secret": ({}, {"AWS_SECRET_ACCESS_KEY": "canary-wrong-secret"}, "AWS_SECRET_ACCESS_KEY"),
    "an unknown profile": ({}, {"AWS_PROFILE": "nobody"}, "AWS_PROFILE"),
    "a requester who does not pay": ({"demands": Demands(payer=True)}, {}, "S3 refused"),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_where_a_run_fails_the_check_fails_and_both_say_why(
    strict_bucket: Callable[..., StrictBucket],
    day: date,
    what: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments, variables, remedy = WRONG[what]
    here = strict_bucket("eu-central-1", **arguments)
    world = here.open(region="eu-central-1", **{"ARCHIVE_BUCKET": here.bucket} | variables)
    monkeypatch.setenv("LEDGER_URL", "ledger")  # so that the run comes as far as to a recording
    assert run("check", [], backoff_s=0.01) != 0
    printed = capsys.readouterr()
    output = " ".join((printed.out + printed.err).split())
    assert remedy in output
    result = world.run(day)
    assert not result.success
    assert remedy in " ".join(world.failures(result).values())
    assert "canary-proxy-password" not in output


@pytest.mark.parametrize(
    ("code", "remedy"), [("RequestTimeTooSkewed", "the clock of this machine"), ("ExpiredToken", "have expired")]
)
def test_an_error_that_lasts_stops_the_run_with_its_remedy_and_the_next_run_goes_on(
    strict_bucket: Callable[..., StrictBucket], day: date, code: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = strict_bucket("eu-central-1")
    world = here.open(region="eu-central-1")
    here.server.fail(code, method="PUT", under="recordings/date", times=10_000)
    result = world.run(day)
    assert not result.success
    assert remedy in " ".join(world.failures(result).values())
    here.server.obey()
    archived(world, day)


def test_a_store_that_is_down_for_recordings_leaves_them_pending_and_the_next_run_has_them(
    strict_bucket: Callable[..., StrictBucket], day: date
) -> None:
    here = strict_bucket("eu-central-1")
    world = here.open(region="eu-central-1", sandbox={"calls_per_day": (1, 1)})
    here.server.fail("InternalError", method="PUT", under="recordings/date", times=10_000)
    result = world.run(day)
    assert world.metadata(result, "recordings")["pending"] >= len(world.truth(day)) > 0
    assert world.objects(f"recordings/date={day}/") == {}
    here.server.obey()
    archived(world, day)
