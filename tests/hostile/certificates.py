"""A certificate for a server of a test, and one for its issuer."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def certificate(folder: Path, name: str, *, ends: datetime | None = None) -> ssl.SSLContext:
    """A server's context with a certificate for `name`, whose issuer is written to `folder/ca.pem`."""
    now = datetime.now(UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    subjects = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in ("Test CA", name)]

    def signed(n: int, extension: x509.ExtensionType) -> bytes:
        builder = x509.CertificateBuilder().subject_name(subjects[n]).issuer_name(subjects[0])
        builder = builder.public_key(keys[n].public_key()).serial_number(n + 1)
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(
            (ends if n else None) or now + timedelta(days=1)
        )
        made = builder.add_extension(extension, critical=True).sign(keys[0], hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM)

    (folder / "ca.pem").write_bytes(signed(0, x509.BasicConstraints(ca=True, path_length=None)))
    (folder / "server.pem").write_bytes(
        signed(1, x509.SubjectAlternativeName([x509.DNSName(name)]))
        + keys[1].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context
