"""Signatures of manifests: Ed25519, made with a key file or with a key that never leaves AWS KMS.

The signed text is short and names the manifest, its SHA-256 and its Merkle root: KMS signs at most 4096 bytes, and an
entry with its path to a signed root can be proved without the other entries:

    ringcx-archive/manifest-signature/2
    manifests/date=2026-11-18/manifest-1.json
    <SHA-256 of the manifest's bytes, hex>
    <its Merkle root, hex>

with a line break after each line and without ARCHIVE_PREFIX, so that an archive may be copied elsewhere. The signature
is stored next to the manifest, `manifest-<n>.json.sig`, create-only: canonical JSON with `statement` (the text above),
`algorithm`, `key_id` (SHA-256 of the public key's DER) and `signature` (base64). Signatures of earlier versions, whose
text has no last line and begins with `…/1`, stay valid. KMS keys have the key spec ECC_NIST_EDWARDS25519 and sign the
raw message with ED25519_SHA_512, which is plain Ed25519: this module and openssl verify both kinds with one public key
file.

`chain` decides which manifests must be signed. No private key is shown, logged or kept outside its object.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyExists, KeyMissing, StorageError
from pipelines.archive.keys import signature_key
from pipelines.archive.proof.manifest import ManifestHead, canonical_json
from pipelines.archive.proof.seal import Sealed
from pipelines.aws import boto3_session, error_code, reason

FORMAT = "ringcx-archive/manifest-signature/2"
FIRST_FORMAT = "ringcx-archive/manifest-signature/1"
_LARGEST: Final = 16 * 1024
_END: Final = b"-----END PUBLIC KEY-----"
_KMS_KEY: Final = "the key that ARCHIVE_SIGNING_KMS_KEY names"


class KeyUnusable(StorageError):  # noqa: N818 - as its siblings in errors.py
    """A signing or verifying key cannot be read or used. The text names the setting and never the key's content."""


@dataclass(frozen=True, slots=True)
class Signer:
    """A signer with one Ed25519 key: `public_key()` returns the public half, `sign` takes at most 4096 bytes.

    Both raise KeyUnusable if KMS refuses.
    """

    public_key: Callable[[], Ed25519PublicKey] = field(repr=False)
    sign: Callable[[bytes], bytes] = field(repr=False)


def local_signer(path: Path) -> Signer:
    """Return a signer that uses ARCHIVE_SIGNING_KEY_FILE: PEM, PKCS #8, no password (`openssl genpkey -algorithm
    ed25519`).

    Raises:
        KeyUnusable: there is no such file, or it contains no Ed25519 key.
    """
    data = _read_file(path, "ARCHIVE_SIGNING_KEY_FILE")
    key = _load(partial(load_pem_private_key, password=None), data)
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(
            "The file that ARCHIVE_SIGNING_KEY_FILE names contains no Ed25519 private key in PEM without a password; "
            "make one with: openssl genpkey -algorithm ed25519 -out key.pem"
        )
    return Signer(key.public_key, key.sign)


def kms_signer(key_id: str) -> Signer:
    """Return a signer that uses a key in AWS KMS: key spec ECC_NIST_EDWARDS25519, usage SIGN_VERIFY, with the
    permissions kms:Sign and kms:GetPublicKey.

    Raises:
        KeyUnusable: no client can be made.
    """
    client = make_kms_client(key_id)

    def public_key() -> Ed25519PublicKey:
        data = _call_kms(client, "get_public_key", KeyId=key_id)["PublicKey"]
        key = _load(load_der_public_key, data)
        if not isinstance(key, Ed25519PublicKey):
            raise KeyUnusable(
                "The KMS key that ARCHIVE_SIGNING_KMS_KEY names is not an Ed25519 key; "
                "make one of the kind ECC_NIST_EDWARDS25519 with the use SIGN_VERIFY"
            )
        return key

    def sign(message: bytes) -> bytes:
        request = {"KeyId": key_id, "MessageType": "RAW", "SigningAlgorithm": "ED25519_SHA_512"}
        return bytes(_call_kms(client, "sign", Message=message, **request)["Signature"])

    return Signer(public_key, sign)


def _call_kms(client: BaseClient, name: str, **request: object) -> Mapping[str, Any]:
    try:
        answer: Mapping[str, Any] = getattr(client, name)(**request)
    except (ClientError, BotoCoreError) as error:
        said = error_code(error) if isinstance(error, ClientError) else type(error).__name__
        sentence = (
            f"KMS refused {name} with {_KMS_KEY} ({said}); it must be an enabled ECC_NIST_EDWARDS25519 key in "
            "AWS_REGION, and the credentials need kms:Sign and kms:GetPublicKey on it"
        )
        if why := reason(error):
            sentence = f"KMS did not serve {name} with {_KMS_KEY}: {why}"
        raise KeyUnusable(sentence) from None
    return answer


def make_kms_client(key_id: str) -> BaseClient:
    """Build a KMS client as boto3 is configured, but in the region of an ARN's key.

    Raises:
        KeyUnusable: no region is set, or a variable that boto3 reads is wrong.
    """
    region = key_id.split(":")[3] if key_id.startswith("arn:") and key_id.count(":") >= 5 else None
    config = Config(connect_timeout=10, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 5})
    try:
        client: BaseClient = boto3_session().client("kms", region_name=region, config=config)
    except (BotoCoreError, ValueError) as error:
        why = reason(error) or f"boto3 cannot make a client ({type(error).__name__})"
        raise KeyUnusable(f"KMS cannot be used: {why}") from error
    return client


class Verifier:
    """One or more public keys that prove signatures (more than one after a key was replaced)."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = {_key_id(key): key for key in keys}

    @classmethod
    def read(cls, path: Path) -> "Verifier":
        """Read ARCHIVE_VERIFY_KEY_FILE: one or more public keys in PEM.

        Raises:
            KeyUnusable: there is no such file, or something in it is not an Ed25519 public key.
        """
        blocks = _read_file(path, "ARCHIVE_VERIFY_KEY_FILE").split(_END)[:-1]
        keys = [_load(load_pem_public_key, block.lstrip() + _END) for block in blocks]
        found = [key for key in keys if isinstance(key, Ed25519PublicKey)]
        if not keys or len(found) < len(keys):
            raise KeyUnusable(
                "The file that ARCHIVE_VERIFY_KEY_FILE names contains something other than Ed25519 public keys in PEM; "
                "make it with: openssl pkey -in key.pem -pubout -out public.pem"
            )
        return cls(found)

    def pem(self, key_id: str) -> bytes | None:
        """Return the public key with that id in PEM, or None if it is not known."""
        key = self._keys.get(key_id)
        return None if key is None else key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def problem(self, bucket: Bucket, manifest: ManifestHead) -> str | None:
        """Return what is wrong with the signature of a manifest, or None if it is good.

        Raises:
            KeyMissing: there is no signature.
        """
        key, where = manifest.key, signature_key(manifest.key)
        body = next(bucket.blocks(where, _LARGEST), b"")
        try:
            document = json.loads(body)
            public = self._keys.get(document["key_id"])
            if public is None:
                return f"{where} was made with a different key from the one given to verify it"
            expected = signed_statement(bucket.prefix, manifest, document)
            public.verify(base64.b64decode(document["signature"], validate=True), expected)
            whole = body == _signature_document(expected, document["signature"], public)
        except (ValueError, KeyError, TypeError, RecursionError, InvalidSignature):
            whole = False
        return None if whole else f"{where} does not sign what {key} holds: one of the two was altered"


def sign_manifest(bucket: Bucket, signer: Signer, sealed: Sealed) -> None:
    """Sign a manifest that has no signature yet. A stored signature stays as it is; verification judges it.

    Raises:
        KeyUnusable: the key cannot sign; the manifest stays unsigned until its date is run again.
        StorageUnavailable: retry later. StorageRefused: fix the settings.
    """
    where = signature_key(sealed.key)
    if bucket.head(where) is not None:
        return
    text = _statement(bucket.prefix, sealed.key, sealed.sha256, sealed.merkle_root)
    signature = base64.b64encode(signer.sign(text)).decode()
    with suppress(KeyExists):
        document = _signature_document(text, signature, signer.public_key())
        bucket.put_new(where, document, content_type="application/json")


def read_signature(bucket: Bucket, key: str) -> Mapping[str, Any]:
    """Return the stored signature of the manifest `key`, not yet verified; empty if nothing is stored."""
    try:
        found = json.loads(bucket.get_bytes(signature_key(key)))
        base64.b64decode(found["signature"], validate=True)
    except (KeyMissing, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return dict(found)


def signed_statement(prefix: str, manifest: ManifestHead, signature: Mapping[str, Any]) -> bytes:
    """Return the text that a signature of this manifest must sign; it has the Merkle root if the signature's format
    requires that.
    """
    is_first = signature.get("format") == FIRST_FORMAT
    root = None if is_first else manifest.document.get("merkle_root")
    return _statement(prefix, manifest.key, manifest.sha256, root)


def _statement(prefix: str, key: str, sha256: str, merkle_root: str | None) -> bytes:
    lines = [FIRST_FORMAT if merkle_root is None else FORMAT, key.removeprefix(prefix), sha256, merkle_root]
    return "".join(f"{line}\n" for line in lines if line is not None).encode()


def _signature_document(text: bytes, signature: str, public: Ed25519PublicKey) -> bytes:
    document = {
        "format": text.partition(b"\n")[0].decode(),
        "algorithm": "Ed25519",
        "statement": text.decode(),
        "key_id": _key_id(public),
        "signature": signature,
    }
    return canonical_json(document)


def _key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _read_file(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyUnusable(
            f"The file that {setting} names cannot be read ({error.strerror or type(error).__name__}); correct the "
            "path or its rights"
        ) from None


def _load(parse: Callable[[bytes], object], data: bytes) -> object:
    """Return a key, or None if the data holds none: an error's text might quote the file."""
    try:
        return parse(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
