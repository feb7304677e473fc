"""Signatures of manifests: Ed25519, made with a key file or with a key that never leaves AWS KMS.

The signed text has four lines: the format, the manifest's key without ARCHIVE_PREFIX (an archive may be copied
elsewhere), its SHA-256 and its Merkle root. KMS signs at most 4096 bytes, and with a signed root an entry can be proved
without the others. Signatures of earlier versions, which lack the last line, stay valid. KMS signs with
ED25519_SHA_512, which is plain Ed25519, so openssl verifies both kinds.

`chain` decides which manifests must be signed. No private key is shown, logged or kept outside its object.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

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


def local_signer(path: Path) -> Ed25519PrivateKey:
    """Return the key in ARCHIVE_SIGNING_KEY_FILE, which is PEM without a password, or raise KeyUnusable."""
    data = _read_file(path, "ARCHIVE_SIGNING_KEY_FILE")
    key = _load(partial(load_pem_private_key, password=None), data)
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(
            "The file that ARCHIVE_SIGNING_KEY_FILE names contains no Ed25519 private key in PEM without a password; "
            "make one with: openssl genpkey -algorithm ed25519 -out key.pem"
        )
    return key


class KmsSigner:
    """A key in AWS KMS (key spec ECC_NIST_EDWARDS25519, usage SIGN_VERIFY); raises KeyUnusable if KMS refuses."""

    def __init__(self, key_id: str) -> None:
        self._key_id = key_id
        self._client = make_kms_client(key_id)

    def public_key(self) -> Ed25519PublicKey:
        """Return the public half."""
        key = _load(load_der_public_key, self._call("get_public_key")["PublicKey"])
        if not isinstance(key, Ed25519PublicKey):
            raise KeyUnusable(
                "The KMS key that ARCHIVE_SIGNING_KMS_KEY names is not an Ed25519 key; "
                "make one of the kind ECC_NIST_EDWARDS25519 with the use SIGN_VERIFY"
            )
        return key

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data`, which is at most 4096 bytes long."""
        answer = self._call("sign", Message=data, MessageType="RAW", SigningAlgorithm="ED25519_SHA_512")
        return bytes(answer["Signature"])

    def _call(self, name: str, **request: object) -> Mapping[str, Any]:
        try:
            return dict(getattr(self._client, name)(KeyId=self._key_id, **request))
        except (ClientError, BotoCoreError) as error:
            if why := reason(error):
                raise KeyUnusable(f"KMS did not serve {name} with {_KMS_KEY}: {why}") from None
            said = error_code(error) if isinstance(error, ClientError) else type(error).__name__
            raise KeyUnusable(
                f"KMS refused {name} with {_KMS_KEY} ({said}); it must be an enabled ECC_NIST_EDWARDS25519 key in "
                "AWS_REGION, and the credentials need kms:Sign and kms:GetPublicKey on it"
            ) from None


Signer: TypeAlias = Ed25519PrivateKey | KmsSigner


def make_kms_client(key_id: str) -> BaseClient:
    """Build a KMS client as boto3 is configured, but in the region of an ARN's key, or raise KeyUnusable."""
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
        """Read one or more public keys in PEM from ARCHIVE_VERIFY_KEY_FILE, or raise KeyUnusable."""
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
        """Return what is wrong with a manifest's signature, or None if it is good; raise KeyMissing without one."""
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
    """Sign a manifest that has no signature yet; after KeyUnusable it stays unsigned until its date is run again."""
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
    """Return the text that a signature must sign: with the manifest's Merkle root, if its format requires that."""
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
