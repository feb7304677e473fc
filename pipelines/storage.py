"""Opens the bucket, the ledger and the signature keys that the settings name, without Dagster or the source."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pipelines.archive.bucket import Bucket
from pipelines.archive.client import make_s3_client
from pipelines.archive.proof.signature import KmsSigner, Signer, Verifier, local_signer
from pipelines.aws import S3Client, split_s3_url
from pipelines.ledger.files import Files, LocalFiles, S3Files
from pipelines.ledger.store import Ledger
from pipelines.settings import StorageSettings


class OpenStores(NamedTuple):
    """The bucket and the ledger of an archive."""

    bucket: Bucket
    ledger: Ledger


def open_stores(
    settings: StorageSettings, s3: S3Client | None, clock: Callable[[], datetime], *, max_connections: int = 16
) -> OpenStores:
    """Return the bucket and the ledger; make an S3 client if `s3` is None."""
    client = s3 or make_s3_client(max_connections=max_connections, options=settings.s3_options)
    name, prefix = settings.archive_bucket, settings.archive_prefix
    bucket = Bucket(client, name, prefix, storage_class=settings.archive_storage_class)
    return OpenStores(bucket, Ledger(ledger_files(settings, client), clock=clock))


def ledger_files(settings: StorageSettings, s3: S3Client) -> Files:
    """Return the ledger's files, in a folder or in S3."""
    where = settings.ledger
    if not where.startswith("s3://"):
        return LocalFiles(Path(where))
    return S3Files(s3, *split_s3_url(where), named_by="LEDGER_URL" if settings.ledger_url else "ARCHIVE_BUCKET")


def signer(settings: StorageSettings) -> Signer | None:
    """Return the key that signs manifests, or None if no key is set; raise KeyUnusable if it cannot be read."""
    if settings.archive_signing_key_file:
        return local_signer(settings.archive_signing_key_file)
    return KmsSigner(settings.archive_signing_kms_key) if settings.archive_signing_kms_key else None


def verifier(settings: StorageSettings) -> Verifier | None:
    """Return the keys that prove signatures: ARCHIVE_VERIFY_KEY_FILE, or the signing key's public half, or None; raise
    KeyUnusable if a key that is set cannot be read.
    """
    if settings.archive_verify_key_file:
        return Verifier.read(settings.archive_verify_key_file)
    key = signer(settings)
    return None if key is None else Verifier([key.public_key()])
