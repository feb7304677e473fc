"""Signatures of manifests, by a key file and by KMS."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from dagster import DagsterInstance

from pipelines.archive.proof.manifest import canonical_json
from tests.commands import run
from tests.pipeline.verify.conftest import DAYS, FIRST, LAST, MIDDLE, Copy, pem, sealed_again
from tests.servers.scripted_http import Request, Response, ScriptedServer


def test_signatures_by_a_key_file_are_made_for_what_is_unsigned_and_proved(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Ed25519PrivateKey.generate()
    private, public = pem(key)
    (copy.folder / "key.pem").write_bytes(private)
    (copy.folder / "public.pem").write_bytes(pem(Ed25519PrivateKey.generate())[1] + public)
    monkeypatch.setenv("ARCHIVE_SIGNING_KEY_FILE", str(copy.folder / "key.pem"))
    found = copy.doubts()
    assert {kind for _, kind, _ in found} == {"signature_missing"}
    assert len(found) == 3
    with DagsterInstance.ephemeral() as instance:
        assert sealed_again(instance, FIRST)
    assert copy.doubts(day=FIRST) == set()
    monkeypatch.delenv("ARCHIVE_SIGNING_KEY_FILE")
    monkeypatch.setenv("ARCHIVE_VERIFY_KEY_FILE", str(copy.folder / "public.pem"))
    assert copy.doubts(day=FIRST) == set()
    signature = f"{copy.manifests(FIRST)[-1]}.sig"
    document = json.loads(copy.get(signature))
    key.public_key().verify(base64.b64decode(document["signature"]), document["statement"].encode())
    digest = hashlib.sha256(copy.get(copy.manifests(FIRST)[-1])).hexdigest()
    assert document["statement"].split("\n")[1:3] == [
        f"manifests/date={FIRST}/manifest-{digest_number(copy)}.json",
        digest,
    ]
    assert base64.b64encode(private) not in b"".join(copy.get(name) for name in copy.keys("manifests/"))


def digest_number(copy: Copy) -> int:
    return int(re.findall(r"\d+", copy.manifests(FIRST)[-1])[-1])


def test_forged_removed_and_foreign_signatures_are_named(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy.folder / "key.pem").write_bytes(pem(Ed25519PrivateKey.generate())[0])
    monkeypatch.setenv("ARCHIVE_SIGNING_KEY_FILE", str(copy.folder / "key.pem"))
    with DagsterInstance.ephemeral() as instance:
        assert sealed_again(instance, *DAYS)
    first, middle, last = (f"{copy.manifests(day)[-1]}.sig" for day in DAYS)
    copy.delete(first)
    document = json.loads(copy.get(middle))
    copy.put(middle, canonical_json(document | {"signature": base64.b64encode(b"0" * 64).decode()}))
    copy.put(last, copy.get(last).replace(b'"Ed25519"', b'"none"'))
    assert copy.doubts() == {
        (str(FIRST), "signature_missing", first),
        (str(MIDDLE), "signature_wrong", middle),
        (str(LAST), "signature_wrong", last),
    }
    (copy.folder / "key.pem").write_bytes(pem(Ed25519PrivateKey.generate())[0])
    copy.verify(first=LAST, last=LAST)
    assert "a different key" in copy.sentences(last)


def test_a_key_that_cannot_be_used_fails_the_manifest_with_a_sentence_and_shows_nothing_of_it(
    copy: Copy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy.folder / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0c2VjcmV0\n-----END PRIVATE KEY-----\n")
    monkeypatch.setenv("ARCHIVE_SIGNING_KEY_FILE", str(copy.folder / "key.pem"))
    with DagsterInstance.ephemeral() as instance:
        assert not sealed_again(instance, FIRST)
        (sealing,) = instance.get_runs()
        events = str(instance.all_logs(sealing.run_id))
    assert "contains no Ed25519 private key" in events
    assert "c2VjcmV0" not in events
    assert run("verify", ["--from", str(FIRST), "--to", str(FIRST)]) == 2
    assert "c2VjcmV0" not in "".join(capsys.readouterr())


def test_signatures_by_kms_are_made_by_the_documented_calls_and_proved_without_kms(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Ed25519PrivateKey.generate()
    with kms(key) as (endpoint, calls):
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", endpoint)
        monkeypatch.setenv("ARCHIVE_SIGNING_KMS_KEY", "alias/archive")
        with DagsterInstance.ephemeral() as instance:
            assert sealed_again(instance, FIRST)
        assert copy.doubts(day=FIRST) == set()
        signed = [arguments for name, arguments in calls if name == "Sign"]
        assert signed, "and the next date's too, where a call over midnight belongs to it"
        for arguments in signed:
            assert (arguments["KeyId"], arguments["MessageType"], arguments["SigningAlgorithm"]) == (
                "alias/archive",
                "RAW",
                "ED25519_SHA_512",
            )
        monkeypatch.setenv("ARCHIVE_SIGNING_KMS_KEY", "alias/unknown")
        with DagsterInstance.ephemeral() as instance:
            assert not sealed_again(instance, MIDDLE)
            (run,) = instance.get_runs()
            assert "KMS refused" in str(instance.all_logs(run.run_id))
    monkeypatch.delenv("ARCHIVE_SIGNING_KMS_KEY")
    (copy.folder / "public.pem").write_bytes(pem(key)[1])
    monkeypatch.setenv("ARCHIVE_VERIFY_KEY_FILE", str(copy.folder / "public.pem"))
    assert copy.doubts(day=FIRST) == set()


@contextmanager
def kms(key: Ed25519PrivateKey) -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """What AWS KMS does with one key of the kind ECC_NIST_EDWARDS25519, by its documented JSON protocol.

    Yields its address, and the names and the arguments of the calls.
    """
    calls: list[tuple[str, dict[str, Any]]] = []

    def respond(request: Request) -> Response:
        call = request.headers["X-Amz-Target"].removeprefix("TrentService."), json.loads(request.body)
        calls.append(call)
        status, answer = _answer_of_kms(key, *call)
        return Response(status, json.dumps(answer).encode(), {"Content-Type": "application/x-amz-json-1.1"})

    with ScriptedServer(respond, keep_alive=True) as server:
        yield server.url, calls


def _answer_of_kms(key: Ed25519PrivateKey, name: str, arguments: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    if arguments["KeyId"] != "alias/archive":
        return 400, {"__type": "NotFoundException", "message": "Alias is not found."}
    if name == "GetPublicKey":
        der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return 200, {"KeyId": "arn", "PublicKey": base64.b64encode(der).decode()}
    message = base64.b64decode(arguments["Message"])
    if len(message) > 4096 or arguments.get("MessageType") != "RAW":
        return 400, {"__type": "ValidationException", "message": "no"}
    return 200, {"KeyId": "arn", "Signature": base64.b64encode(key.sign(message)).decode()}
