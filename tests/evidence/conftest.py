"""A date with calls, sealed and signed, and packages made of it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipelines.evidence.package import EvidencePackage, ExportRequest
from tests.browser.conftest import site  # noqa: F401 - a fixture
from tests.browser.site import DAY, Site, tone
from tests.compliance.conftest import bucket  # noqa: F401 - a fixture

ORDER = ExportRequest(
    by="r.adams", at=datetime(2026, 11, 30, 9, 5, tzinfo=UTC), why="Case 4711", asked_for={"uii": "2026"}
)


@dataclass
class Exported:
    """A package: its bytes, what was made, and its files."""

    body: bytes
    package: EvidencePackage

    @property
    def files(self) -> dict[str, bytes]:
        with zipfile.ZipFile(io.BytesIO(self.body)) as opened:
            return {name: opened.read(name) for name in opened.namelist()}

    @property
    def listing(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.files["package.json"])
        return found

    def proof(self, place: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.files[self.listing["recordings"][place]["proof"]])
        return found

    def save(self, path: Path) -> Path:
        path.write_bytes(self.body)
        return path

    def unpack(self, folder: Path) -> Path:
        with zipfile.ZipFile(io.BytesIO(self.body)) as opened:
            opened.extractall(folder)
        return folder


def packaged(site: Site, **options: Any) -> EvidencePackage:  # noqa: F811 - no fixture here
    """Return the package of every call of a site, not made yet."""
    rows = [row | {"date": DAY} for row in site.rows]
    return EvidencePackage(site.bucket, site.verifier, rows, ORDER, **options)


def exported(site: Site, **options: Any) -> Exported:  # noqa: F811 - no fixture here
    """Export every call of a site."""
    package = packaged(site, **options)
    return Exported(b"".join(package.blocks()), package)


@pytest.fixture
def full(site: Site) -> Site:  # noqa: F811 - as above
    """Two recordings that are held and one that is lost, among nine others of the date; signed."""
    site.key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    for index in range(9):
        site.add(tone(0.01, 300 + index), uii=f"other{index}", agent_name="Nobody Else", notes="of somebody else")
    site.add(tone(0.5, 300, 500), notes="=cmd()")
    site.add(tone(0.2, 400), layout="mono", agent_channel=None)
    site.add(None, uii="2026112219154001516000000002")
    site.seal()
    site.rows = site.rows[9:]
    return site


@pytest.fixture
def package(full: Site) -> Exported:
    return exported(full)


@pytest.fixture
def repacked(tmp_path: Path) -> Callable[..., Path]:
    """Write files as a ZIP, not compressed."""

    def write(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
        path = tmp_path / "repacked.zip"
        with zipfile.ZipFile(path, "w", compression) as into:
            for name, body in files.items():
                into.writestr(name, body)
        return path

    return write
