"""Manifests are numbered, chained and never overwritten, and an altered one is noticed."""

import base64
import hashlib
import io
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import StorageUnavailable, StoreDamaged
from pipelines.archive.keys import manifest_key, signature_key
from pipelines.archive.proof.attestation import ObservedObject, read_attestations, write_attestation
from pipelines.archive.proof.chain import read_chain
from pipelines.archive.proof.manifest import ManifestEntry, canonical_json, latest_manifest, read_manifest
from pipelines.archive.proof.seal import CATALOG_SCHEMA, Sealed, catalog_table, seal
from pipelines.archive.proof.signature import (
    FIRST_FORMAT,
    KeyUnusable,
    Verifier,
    local_signer,
    sign_manifest,
    signed_statement,
)
from tests.memory_bucket import a_bucket
from tests.servers.s3_proxy import S3Proxy

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


DAY = date(2020, 7, 30)
NOON = datetime(2020, 8, 1, 12, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def entry(name: str = "a", **changed: Any) -> ManifestEntry:
    whole = ManifestEntry(
        recording_id=f"1/{name}",
        account_id="1",
        uii="202007302136360132130000036446",
        layout="mono",
        source="global_call_type_detail",
        status="archived",
        started_at=datetime(2020, 7, 30, 21, 36, 36, tzinfo=UTC),
        duration_s=12.3456789,
        key=f"recordings/{name}.WAV",
        size=44,
        sha256="ab" * 32,
    )
    return whole._replace(**changed)


def lines(*entries: ManifestEntry) -> pa.Table:
    """What the ledger has of these, by id, and a column more."""
    entries = tuple(sorted(entries))
    own = [field for field in CATALOG_SCHEMA if field.name not in {"also_known_as", "verdict"}]
    schema = pa.schema([pa.field("attempts", pa.int64()), *own])
    return pa.Table.from_pylist([{"attempts": 1, **item._asdict()} for item in entries], schema=schema)


def do_seal(bucket: Bucket, *entries: ManifestEntry, day: date = DAY, run_id: str = "r", at: datetime = NOON) -> Sealed:
    in_order = sorted(entries, key=lambda entry: entry.recording_id)
    totals = {"recordings": len(entries)}
    return seal(bucket, day, lambda: in_order, totals, catalog_table(lines()), run_id=run_id, sealed_at=at)


def document(bucket: Bucket, sealed: Sealed) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(bucket.get_bytes(sealed.key))
    return parsed


def overwrite(bucket: Bucket, key: str, body: bytes) -> None:
    bucket.put(key, body, content_type="application/json")


@given(st.dictionaries(st.text(), JSON, max_size=5), st.randoms())
def test_canonical_json_is_one_text_for_one_document(value: dict[str, Any], chance: Any) -> None:
    body = canonical_json(value)
    names = list(value)
    chance.shuffle(names)
    assert canonical_json({name: value[name] for name in names}) == body
    assert json.loads(body) == value
    assert canonical_json(json.loads(body)) == body
    assert body.endswith(b"\n")
    assert body.count(b"\n") == 1


def test_canonical_json_has_no_blanks_and_keeps_scripts() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "é, \ud800"}) == '{"a":"é, \\ud800","b":[1,2.5,null]}\n'.encode()
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


def test_the_first_manifest_holds_everything_asked_of_it(bucket: Bucket) -> None:
    sealed = do_seal(bucket, entry("b"), entry("a", status="missing", reason="not_found", key=None))
    held = document(bucket, sealed)
    root = held["merkle_root"]
    assert sealed == Sealed(manifest_key(bucket.prefix, DAY, 1), 1, sealed.sha256, root, unchanged=False)
    body = bucket.get_bytes(sealed.key)
    assert sha256(body).hexdigest() == sealed.sha256
    assert canonical_json(held) == body
    assert [item["recording_id"] for item in held["entries"]] == ["1/a", "1/b"]
    assert set(held["entries"][0]) == set(ManifestEntry._fields)
    assert held["entries"][1]["started_at"] == "2020-07-30T21:36:36.000000+00:00"
    assert held["entries"][1]["duration_s"] == 12.346
    assert (held["date"], held["number"], held["run_id"]) == ("2020-07-30", 1, "r")
    assert (held["previous_sha256"], held["previous_day"]) == (None, None)
    assert held["totals"] == {"recordings": 2}


def test_the_same_content_makes_no_new_number(bucket: Bucket) -> None:
    first = do_seal(bucket, entry("a"), entry("b"))
    elsewhere = timezone(timedelta(hours=2))
    again = do_seal(
        bucket,
        entry("b"),
        entry("a", started_at=datetime(2020, 7, 30, 23, 36, 36, tzinfo=elsewhere)),
        run_id="another",
        at=NOON + timedelta(days=1),
    )
    assert again == replace(first, unchanged=True)
    latest = latest_manifest(bucket, DAY)
    assert latest is not None
    assert (latest.number, latest.sha256) == (1, first.sha256)


def test_each_number_names_the_one_before(bucket: Bucket) -> None:
    sealed = [do_seal(bucket, *(entry(str(n)) for n in range(count))) for count in range(12)]
    assert [manifest.number for manifest in sealed] == list(range(1, 13))  # 10 comes after 9, not after 1
    for before, after in pairwise(sealed):
        assert document(bucket, after)["previous_sha256"] == before.sha256
    assert read_chain(bucket, DAY).problems == []
    back = do_seal(bucket)
    assert (back.number, back.unchanged) == (13, False)  # content of long ago is still a change


def test_a_day_names_the_latest_manifest_of_the_day_before(bucket: Bucket) -> None:
    do_seal(bucket, day=DAY - timedelta(days=2))
    first = do_seal(bucket, entry("a"), day=DAY)
    assert document(bucket, first)["previous_day"] is None
    for count in (1, 2):
        yesterday = do_seal(bucket, *(entry(str(n)) for n in range(count)), day=DAY - timedelta(days=1))
    assert do_seal(bucket, entry("a"), day=DAY).unchanged  # yesterday's growth is no change of today
    second = do_seal(bucket, entry("b"), day=DAY)
    assert document(bucket, second)["previous_day"] == {
        "date": "2020-07-29",
        "number": 2,
        "sha256": yesterday.sha256,
    }


def test_a_day_without_recordings_is_sealed_too(bucket: Bucket) -> None:
    sealed = do_seal(bucket)
    assert document(bucket, sealed)["entries"] == []


def test_a_day_never_sealed_has_no_manifest(bucket: Bucket) -> None:
    assert latest_manifest(bucket, DAY) is None
    assert read_chain(bucket, DAY).problems == []


def test_sealers_at_once_overwrite_nothing(bucket: Bucket) -> None:
    gate = threading.Barrier(4)

    def run(number: int) -> Sealed:
        gate.wait()
        return do_seal(bucket, entry(str(number)), run_id=str(number))

    with ThreadPoolExecutor(4) as pool:
        sealed = list(pool.map(run, range(4)))
    assert sorted(manifest.number for manifest in sealed) == [1, 2, 3, 4]
    for number, manifest in enumerate(sealed):
        assert document(bucket, manifest)["run_id"] == str(number)
        assert sha256(bucket.get_bytes(manifest.key)).hexdigest() == manifest.sha256
    assert read_chain(bucket, DAY).problems == []


def test_sealers_of_the_same_content_at_once_agree_on_one_manifest(bucket: Bucket) -> None:
    gate = threading.Barrier(4)

    def run(number: int) -> Sealed:
        gate.wait()
        return do_seal(bucket, entry("a"), run_id=str(number))

    with ThreadPoolExecutor(4) as pool:
        sealed = list(pool.map(run, range(4)))
    assert {(manifest.number, manifest.sha256) for manifest in sealed} == {(1, sealed[0].sha256)}
    assert sorted(manifest.unchanged for manifest in sealed) == [False, True, True, True]


def test_a_lost_answer_seals_once(proxied: Bucket, proxy: S3Proxy) -> None:
    proxy.orders["PUT"] = ["lose"]
    assert do_seal(proxied, entry("a")).number == 1
    assert do_seal(proxied, entry("a")).unchanged


def test_a_number_always_taken_is_given_up(proxied: Bucket, proxy: S3Proxy) -> None:
    proxy.orders["PUT"] = [(412, "PreconditionFailed")] * 50
    with pytest.raises(StorageUnavailable, match="one run at a time"):
        do_seal(proxied, entry("a"))
    assert latest_manifest(proxied, DAY) is None


def test_a_manifest_altered_on_the_way_never_counts(proxied: Bucket, proxy: S3Proxy) -> None:
    proxy.orders["PUT"] = ["alter"]
    with pytest.raises(StoreDamaged):
        do_seal(proxied, entry("a"))
    with pytest.raises(StoreDamaged):
        latest_manifest(proxied, DAY)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.replace(b'"size":44', b'"size":45'),
        lambda body: body[:-2],
        lambda body: b" " + body,
        lambda _: b"",
        lambda _: b"[]",
        lambda body: body.replace(b'"number":1', b'"number":2'),
        lambda body: body.replace(b"2020-07-30", b"2020-07-31"),
        lambda _: b"[" * 100_000,
    ],
)
def test_an_altered_manifest_is_noticed(bucket: Bucket, change: Callable[[bytes], bytes]) -> None:
    sealed = do_seal(bucket, entry("a"))
    overwrite(bucket, sealed.key, change(bucket.get_bytes(sealed.key)))
    with pytest.raises(StoreDamaged, match="manifest-1"):
        do_seal(bucket, entry("b"))
    assert len(read_chain(bucket, DAY).problems) == 1


def test_a_manifest_replaced_by_a_well_formed_one_breaks_the_chain(bucket: Bucket) -> None:
    first = do_seal(bucket, entry("a"))
    do_seal(bucket, entry("b"))
    forged = document(bucket, first) | {"run_id": "forged"}
    overwrite(bucket, first.key, canonical_json(forged))
    (problem,) = (doubt.sentence for doubt in read_chain(bucket, DAY).problems)
    assert problem.startswith(f"{first.key} breaks the chain")


def test_a_removed_manifest_breaks_the_chain(moto_bucket: Bucket, moto_client: "S3Client") -> None:
    for name in "abc":
        do_seal(moto_bucket, entry(name))
    moto_client.delete_object(Bucket="archive", Key=manifest_key(moto_bucket.prefix, DAY, 2))
    (problem,) = (doubt.sentence for doubt in read_chain(moto_bucket, DAY).problems)
    assert "without a gap" in problem


def test_a_manifest_read_again_gives_what_was_sealed(rclone_bucket: Bucket) -> None:
    names = ["", "é", '"entries":[', "],{}", "\\", "\ud800", "漢字", "\x00", *map(str, range(20))]
    sealed = do_seal(rclone_bucket, *(entry(name, uii=name) for name in names))
    entries: list[Any] = []
    head = read_manifest(rclone_bucket, DAY, 1, entries.append)
    body = rclone_bucket.get_bytes(sealed.key)
    assert head.sha256 == sealed.sha256
    assert {**head.document, "entries": entries} == json.loads(body)


def test_the_entries_of_the_latest_manifest_alone_are_handed_on(bucket: Bucket) -> None:
    do_seal(bucket, entry("a"))
    do_seal(bucket, entry("a"), entry("b"))
    entries: list[Any] = []
    chain = read_chain(bucket, DAY, entry=entries.append)
    assert chain.latest is not None
    assert chain.latest.number == 2
    assert [item["recording_id"] for item in entries] == ["1/a", "1/b"]


def keys_of(private: Any, folder: Path) -> tuple[Path, Path]:
    """The PEM files of a private key and of its public half."""
    own, public = folder / "key.pem", folder / "public.pem"
    own.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return own, public


def test_a_signature_lies_beside_its_manifest_is_made_once_and_is_proved(bucket: Bucket, tmp_path: Path) -> None:
    own, public = keys_of(Ed25519PrivateKey.generate(), tmp_path)
    signer, verifier = local_signer(own), Verifier.read(public)
    sealed = do_seal(bucket, entry("a"))
    assert read_chain(bucket, DAY).problems == []
    (missing,) = (problem.sentence for problem in read_chain(bucket, DAY, verifier=verifier).problems)
    assert "is not there" in missing
    sign_manifest(bucket, signer, sealed)
    body = bucket.get_bytes(f"{sealed.key}.sig")
    sign_manifest(bucket, signer, sealed)
    assert bucket.get_bytes(f"{sealed.key}.sig") == body
    assert read_chain(bucket, DAY, verifier=verifier).problems == []
    statement = json.loads(body)["statement"]
    assert statement.splitlines() == [
        "ringcx-archive/manifest-signature/2",
        "manifests/date=2020-07-30/manifest-1.json",
        sealed.sha256,
        document(bucket, sealed)["merkle_root"],
    ]
    assert len(statement) < 4096, "KMS signs no more"
    # A signature is no manifest: it takes no number, and the next one does not mind it.
    assert do_seal(bucket, entry("b")).number == 2
    # The newest must be signed; an older one that never was is vouched for by the chain.
    (missing,) = (problem.sentence for problem in read_chain(bucket, DAY, verifier=verifier).problems)
    assert "manifest-2.json.sig is not there" in missing


def test_a_signature_of_an_earlier_version_stays_valid_with_a_root_and_without(bucket: Bucket, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    own, public = keys_of(key, tmp_path)
    signer, verifier = local_signer(own), Verifier.read(public)
    for number, name in enumerate("ab", start=1):
        sealed = do_seal(bucket, entry(name))
        if number == 1:
            written = document(bucket, sealed)
            del written["merkle_root"]
            overwrite(bucket, sealed.key, canonical_json(written))
        head = read_manifest(bucket, DAY, number)
        text = signed_statement(bucket.prefix, head, {"format": FIRST_FORMAT})
        assert text.decode().splitlines()[0] == "ringcx-archive/manifest-signature/1"
        assert text.count(b"\n") == 3
        sign_manifest(bucket, signer, sealed)
        stored = json.loads(bucket.get_bytes(signature_key(sealed.key)))
        stored["signature"] = base64.b64encode(key.sign(text)).decode()
        first = stored | {"format": FIRST_FORMAT, "statement": text.decode()}
        overwrite(bucket, signature_key(sealed.key), canonical_json(first))
        assert verifier.problem(bucket, head) is None
        overwrite(bucket, signature_key(sealed.key), canonical_json(stored))
        assert "does not sign" in str(verifier.problem(bucket, head))


@given(st.integers(1, 40))
def test_the_root_of_a_manifest_is_that_of_its_entries_as_rfc_6962_defines_it(count: int) -> None:
    bucket = a_bucket()
    bucket.is_amazon, bucket.put_new.side_effect = True, bucket.put.side_effect
    names = [f'{number:03}"}},{{"account_id":"' for number in range(count)]
    sealed = do_seal(bucket, *(entry(name, uii=name) for name in names))
    leaves = [canonical_json(item).rstrip(b"\n") for item in document(bucket, sealed)["entries"]]
    assert len(leaves) == count
    assert sealed.merkle_root == tree_hash(leaves).hex()
    assert read_manifest(bucket, DAY, 1).document["merkle_root"] == sealed.merkle_root


def tree_hash(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, word by word."""
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    middle = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha256(b"\x01" + tree_hash(leaves[:middle]) + tree_hash(leaves[middle:])).digest()


def test_a_manifest_with_a_wrong_root_is_not_the_one_that_was_sealed(bucket: Bucket) -> None:
    sealed = do_seal(bucket, entry("a"), entry("b"))
    for root in ("ab" * 32, "", None, ["ab"]):
        overwrite(bucket, sealed.key, canonical_json(document(bucket, sealed) | {"merkle_root": root}))
        with pytest.raises(StoreDamaged, match="is not the manifest that was sealed"):
            latest_manifest(bucket, DAY)
        assert "is not the manifest that was sealed" in read_chain(bucket, DAY).problems[0].sentence


def test_a_manifest_forged_with_all_its_hashes_fails_its_signature(bucket: Bucket, tmp_path: Path) -> None:
    own, public = keys_of(Ed25519PrivateKey.generate(), tmp_path)
    sealed = do_seal(bucket, entry("a"))
    sign_manifest(bucket, local_signer(own), sealed)
    overwrite(bucket, sealed.key, canonical_json(document(bucket, sealed) | {"run_id": "forged"}))
    assert read_chain(bucket, DAY).problems == []
    (problem,) = (doubt.sentence for doubt in read_chain(bucket, DAY, verifier=Verifier.read(public)).problems)
    assert "does not sign" in problem


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b"[" * 9999])
def test_nonsense_in_place_of_a_signature_is_no_signature(bucket: Bucket, tmp_path: Path, body: bytes) -> None:
    own, public = keys_of(Ed25519PrivateKey.generate(), tmp_path)
    sealed = do_seal(bucket, entry("a"))
    sign_manifest(bucket, local_signer(own), sealed)
    overwrite(bucket, signature_key(sealed.key), body)
    (problem,) = (doubt.sentence for doubt in read_chain(bucket, DAY, verifier=Verifier.read(public)).problems)
    assert signature_key(sealed.key) in problem


def test_keys_of_another_kind_are_refused_without_a_word_of_their_content(tmp_path: Path) -> None:
    own, public = keys_of(generate_private_key(SECP256R1()), tmp_path)
    for read, path in ((local_signer, own), (Verifier.read, public), (local_signer, public), (Verifier.read, own)):
        with pytest.raises(KeyUnusable, match="openssl") as caught:
            read(path)
        assert path.read_text().split("\n")[1] not in str(caught.value)
        assert caught.value.__cause__ is None
    with pytest.raises(KeyUnusable, match="ARCHIVE_SIGNING_KEY_FILE"):
        local_signer(tmp_path / "none")
    assert "PRIVATE" not in repr(local_signer(keys_of(Ed25519PrivateKey.generate(), tmp_path)[0]))


def test_attestations_add_up_and_a_damaged_one_is_named(bucket: Bucket) -> None:
    of_a, of_b = ObservedObject("a", 1, "0" * 64), ObservedObject("b", 2, "1" * 64)
    assert write_attestation(bucket, "manifests", DAY, [], now=NOON) is None
    first = write_attestation(bucket, "manifests", DAY, [of_a, of_b], now=NOON)
    write_attestation(bucket, "manifests", DAY, [replace(of_a, size=7)], now=NOON)
    write_attestation(bucket, "report_rows", DAY, [replace(of_a, name="c")], now=NOON)
    seen, problems = read_attestations(bucket, "manifests", DAY)
    assert seen == {"a": {of_a, replace(of_a, size=7)}, "b": {of_b}}
    assert problems == ()
    assert first is not None
    overwrite(bucket, first, bucket.get_bytes(first).replace(b'"size":2', b'"size": 2'))
    seen, problems = read_attestations(bucket, "manifests", DAY)
    assert seen == {"a": {replace(of_a, size=7)}}
    assert first in problems[0]


def test_what_cannot_be_sealed_is_refused(bucket: Bucket) -> None:
    with pytest.raises(ValueError, match="twice"):
        do_seal(bucket, entry("a"), entry("a"))
    with pytest.raises(ValueError, match="out of order"):
        seal(bucket, DAY, lambda: [entry("b"), entry("a")], {}, catalog_table(lines()), run_id="r", sealed_at=NOON)
    with pytest.raises(ValueError, match="zone"):
        do_seal(bucket, entry("a"), at=datetime(2020, 8, 1))  # noqa: DTZ001 - what is refused
    assert latest_manifest(bucket, DAY) is None


def sealed_with(bucket: Bucket, *entries: ManifestEntry, names: dict[str, list[str]] | None = None) -> Any:
    catalog = catalog_table(lines(*entries), names)
    in_order = sorted(entries, key=lambda entry: entry.recording_id)
    return seal(bucket, DAY, lambda: in_order, {}, catalog, run_id="r", sealed_at=NOON)


def catalog_of(bucket: Bucket) -> bytes:
    return bucket.get_bytes(f"{bucket.prefix}catalog/date=2020-07-30/recordings.parquet")


def test_the_catalog_is_a_table_whose_hash_is_sealed(bucket: Bucket) -> None:
    sealed_with(bucket, entry("x"))
    sealed_with(bucket, entry("b", warnings=("short",)), entry("a", status="missing", key=None))
    body = catalog_of(bucket)
    table = pq.read_table(io.BytesIO(body))
    assert table.schema.equals(CATALOG_SCHEMA)
    assert table.column("recording_id").to_pylist() == ["1/a", "1/b"]
    assert table.column("warnings").to_pylist() == [[], ["short"]]
    latest = latest_manifest(bucket, DAY)
    assert latest is not None
    assert latest.document["catalog_sha256"] == hashlib.sha256(body).hexdigest()
    assert read_chain(bucket, DAY).problems == []
    older = lines(entry("a"))
    older = older.set_column(older.column_names.index("warnings"), "warnings", pa.nulls(1, pa.list_(pa.string())))
    table = catalog_table(older)
    assert table.column("warnings").to_pylist() == [[]]
    assert table.column("started_at").to_pylist()[0] == datetime(2020, 7, 30, 21, 36, 36, tzinfo=UTC)


def test_a_quiet_days_catalog_has_its_columns(bucket: Bucket) -> None:
    sealed_with(bucket)
    table: pa.Table = pq.read_table(io.BytesIO(catalog_of(bucket)))
    assert (table.num_rows, table.schema.names) == (0, CATALOG_SCHEMA.names)


def test_a_catalog_names_the_verdict_of_its_date_and_parts_of_before_are_read_with_it(
    bucket: Bucket, tmp_path: Path
) -> None:
    own = catalog_table(lines(entry("a")), verdict="waiting")
    seal(bucket, DAY, lambda: [entry("a")], {}, own, run_id="r", sealed_at=NOON)
    new = pq.read_table(io.BytesIO(catalog_of(bucket)))
    assert new["verdict"].to_pylist() == ["waiting"]
    for day, table in (("2020-07-29", own.drop_columns(["verdict"])), ("2020-07-30", new)):
        folder = tmp_path / f"date={day}"
        folder.mkdir()
        pq.write_table(table, folder / "recordings.parquet")
    both = ds.dataset(tmp_path, schema=CATALOG_SCHEMA.append(pa.field("date", pa.string())), partitioning="hive")
    assert both.to_table(columns=["date", "verdict"]).to_pylist() == [
        {"date": "2020-07-29", "verdict": None},
        {"date": "2020-07-30", "verdict": "waiting"},
    ]
    assert pd.read_parquet(tmp_path).groupby(["date", "status"], observed=True).size().sum() == 2


def test_a_catalog_is_written_only_if_its_bytes_are_not_those_that_are_sealed(
    moto_bucket: Bucket, moto_client: "S3Client"
) -> None:
    moto_client.put_bucket_versioning(Bucket=moto_bucket.name, VersioningConfiguration={"Status": "Enabled"})
    key = f"{moto_bucket.prefix}catalog/date=2020-07-30/recordings.parquet"

    def versions() -> int:
        found = moto_client.list_object_versions(Bucket=moto_bucket.name, Prefix=key)
        return len(found["Versions"])

    first = sealed_with(moto_bucket, entry("a"))
    again = sealed_with(moto_bucket, entry("a"))
    assert (again.number, again.unchanged, versions()) == (first.number, True, 1)
    out = io.BytesIO()
    pq.write_table(catalog_table(lines(entry("a"))), out, compression="snappy")
    moto_client.put_object(Bucket=moto_bucket.name, Key=key, Body=out.getvalue())
    assert (sealed_with(moto_bucket, entry("a")).unchanged, versions()) == (True, 3)
    named = sealed_with(moto_bucket, entry("a"), names={"1/a": ["1/d/s"]})
    assert (named.unchanged, versions()) == (False, 4)


@pytest.mark.parametrize("instead", [b"PAR1 no table", None])
def test_a_catalog_that_is_damaged_or_another_dates_is_made_anew_as_it_was_sealed(
    bucket: Bucket, instead: bytes | None
) -> None:
    sealed = sealed_with(bucket, entry("a"))
    body = catalog_of(bucket)
    if instead is None:
        out = io.BytesIO()
        pq.write_table(catalog_table(lines(entry("b"), entry("c"))), out)
        instead = out.getvalue()
    bucket.put(f"{bucket.prefix}catalog/date=2020-07-30/recordings.parquet", instead, content_type="x/y")
    again = sealed_with(bucket, entry("a"))
    assert (again.number, again.unchanged) == (sealed.number, True)
    assert catalog_of(bucket) == body


@pytest.mark.parametrize("field", ["catalog_sha256", "merkle_root"])
def test_a_manifest_of_an_earlier_version_stays_valid_and_is_followed_by_one_that_has_every_hash(
    bucket: Bucket, field: str
) -> None:
    old = do_seal(bucket, entry("a"))
    written = document(bucket, old)
    del written[field]
    overwrite(bucket, old.key, canonical_json(written))
    assert read_chain(bucket, DAY).problems == []
    new = do_seal(bucket, entry("a"))
    assert (new.number, new.unchanged) == (old.number + 1, False)
    assert do_seal(bucket, entry("a")).unchanged
    assert read_chain(bucket, DAY).problems == []
