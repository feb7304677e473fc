"""Verify an evidence package of RingCX Archive, as a ZIP or unpacked.

    python3 -I verify.py                          the folder in which this file is
    python3 -I verify.py package.zip              a package that is not unpacked
    python3 -I verify.py --key archive.pem ...    with the archive's public key, which you were given separately

It needs Python 3.9 or later and nothing else: no network, no package. It reads, and changes nothing. Exit code 0: every
recording is proved; 1: something is not as it was sealed, or a recording that was requested and should be in the
archive is not in the package; 2: there is no such file; 3: nothing is wrong, but no signature that was checked covers
some of the recordings, or the package holds none.

What is proved: each recording is, byte for byte, the one that its entry names; the entry was sealed in its manifest,
since hashes lead from it to the manifest's Merkle root (RFC 6962); and the holder of the private key signed that root
(Ed25519, RFC 8032). The id, call, account and date of each recording in calls.csv and package.json are compared with
its entry. Whatever else these two files say is the word of the person who exported them: nothing seals it. Nor is it
proved that nothing was left out: somebody may have made this package from a larger one.
"""

import sys

# Nothing that lies next to this file is imported, not even __future__, which annotations would need.
if __name__ == "__main__" and not getattr(sys.flags, "safe_path", sys.flags.isolated):
    del sys.path[0]

import argparse
import base64
import csv
import hashlib
import io
import json
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

PACKAGE = "ringcx-archive/package/1"
PROOF = "ringcx-archive/proof/1"
SIGNED = "ringcx-archive/manifest-signature/2"
SIGNED_WITHOUT_ROOT = "ringcx-archive/manifest-signature/1"
LAST = "package.json"  # it is written last, and lists the others
_FIXED_FILES = ("calls.csv", "verify.py", "HOW-TO-VERIFY.txt", "SHA256SUMS")
_NAME = re.compile(r"(recordings|proofs|keys)/[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_HASH = re.compile(r"[0-9a-f]{64}")
_SYSTEM_FILES = {".ds_store", "thumbs.db", "desktop.ini", "__macosx", "__pycache__"}
_IDENTITY = ("recording_id", "account_id", "uii")
_LEFT_OUT = ("altered", "not proved", "withheld")
_BLOCK = 1 << 20
_LARGEST_JSON = 1 << 28
_SHOWN = 100
_ZIP_HEADER, _ZIP_LISTED = 30, 46  # bytes before a file, and of its line in the list, without names
# Bytes more before the next file: none, sizes after the data, a large file's before it, or both.
_ZIP_SIZES = {0, 16, 20, 44}
_ZIP_ENDS = {22, 98}  # bytes of the end of the list, and with that of a large package
_UNREADABLE = (
    OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RuntimeError,
    MemoryError, zipfile.BadZipFile, zlib.error, struct.error, csv.Error,
)  # fmt: skip


class PackageFault(Exception):  # noqa: N818 - its name says what happened
    """A fault in the package; the text is one sentence."""


class Findings:
    """The findings. `problems` and `notes` are sentences; `proved`, `unsigned` and `left_out` count recordings:
    `left_out` those that were requested and should be in the archive, but are not in the package. `is_key_given`: the
    keys do not come from the package.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.proved = 0
        self.unsigned = 0
        self.left_out = 0
        self.keys: set[str] = set()
        self.is_key_given = False

    @property
    def exit_code(self) -> int:
        """The exit code, as the first lines of this file describe it."""
        if self.problems or self.left_out:
            return 1
        if self.unsigned or not self.proved:
            return 3
        return 0

    def lines(self) -> list[str]:
        """Return the report as lines of text; the last one is the result."""
        count = self.proved + self.unsigned + self.left_out
        said = [_printable(note) for note in self.notes[:_SHOWN]]
        if len(self.notes) > _SHOWN:
            said.append(f"Further notes: {len(self.notes) - _SHOWN}.")
        said += [f"WRONG: {_printable(problem)}" for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            said.append(f"WRONG: and {len(self.problems) - _SHOWN} more.")
        said += [f"Signed with the key whose fingerprint (SHA-256) is {key}." for key in sorted(self.keys)]
        if self.problems:
            result = "This package is NOT as it was exported: do not rely on it."
        elif not self.proved + self.unsigned:
            result = "There is no recording in this package."
        elif self.unsigned:
            result = (
                f"NOT proved: {self.unsigned} of {count} recordings. The bytes agree with the proofs in this package, "
                "but anybody can make such proofs, and no signature that was checked vouches for them: compare each "
                "Merkle root above with the one in the archive's certificate of that date."
            )
        else:
            result = f"Proved: {self.proved} of {count} recordings, byte for byte as they were sealed and signed"
            result += "." if self.is_key_given else ", provided that the archive's owner confirms each key above."
        if self.left_out:
            result += (
                " INCOMPLETE: recordings that were requested and should be in the archive, but are missing from this "
                f"package: {self.left_out}."
            )
        return [*said, result]


def verify(path: Path, trusted: "dict[str, bytes] | None" = None) -> Findings:
    """Verify a package, a ZIP or a folder, with the archive's public keys from `read_keys`.

    Without them the package's own keys are used, and a person must compare their fingerprints.
    """
    report = Findings()
    report.is_key_given = trusted is not None
    try:
        with ExitStack() as stack:
            if path.is_dir():
                files = _Files.of_folder(path, report)
            else:
                files = _Files.of_zip(stack.enter_context(zipfile.ZipFile(path)), path.stat().st_size)
            _verify(files, trusted, report)
    except PackageFault as error:
        report.problems.append(str(error))
    except _UNREADABLE as error:
        report.problems.append(
            f"The package cannot be read: it is damaged, cut off or not a package ({type(error).__name__})."
        )
    return report


def read_keys(pem: str) -> dict[str, bytes]:
    """Return the Ed25519 public keys of a PEM text, 32 bytes each, by their id: the SHA-256 of their DER."""
    keys = {}
    for block in re.findall("-----BEGIN PUBLIC KEY-----(.*?)-----END PUBLIC KEY-----", pem, re.DOTALL):
        der = base64.b64decode("".join(block.split()))
        if len(der) != 44 or not der.startswith(bytes.fromhex("302a300506032b6570032100")):
            raise PackageFault("A public key is not an Ed25519 key in PEM.")
        keys[hashlib.sha256(der).hexdigest()] = der[12:]
    if not keys:
        raise PackageFault("The file of keys contains no Ed25519 public key in PEM.")
    return keys


class _Files:
    """The files of a package by name: their sizes and their bytes."""

    def __init__(self, read: Callable[[str], IO[bytes]]) -> None:
        self.sizes: dict[str, int] = {}
        self._read = read
        self._hashes: dict[str, str] = {}

    @classmethod
    def of_folder(cls, folder: Path, report: Findings) -> "_Files":
        files = cls(lambda name: (folder / name).open("rb"))
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if any(part.casefold() in _SYSTEM_FILES or part.startswith("._") for part in name.split("/")):
                report.notes.append(f"Ignored, because the operating system adds such files: {_shown(name)}")
            elif path.is_symlink():
                raise PackageFault(f"{_shown(name)} is a link, which no package contains.")
            elif not path.is_dir():
                files.sizes[name] = path.stat().st_size
        return files

    @classmethod
    def of_zip(cls, package: zipfile.ZipFile, size: int) -> "_Files":
        files = cls(package.open)
        for info in package.infolist():
            if info.filename in files.sizes:
                raise PackageFault(f"{_shown(info.filename)} is in the package twice.")
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                raise PackageFault(f"{_shown(info.filename)} is a link or a folder, which no package contains.")
            files.sizes[info.filename] = info.file_size
        if sum(files.sizes.values()) > size:
            raise PackageFault(
                "The files in the package claim to be larger than the package, as in a ZIP bomb: a package is never "
                "compressed. If somebody packed it again, unpack it and verify the folder."
            )
        if not _is_nothing_but_its_files(package, size):
            raise PackageFault(
                "The package has bytes before, between or after its files, where another ZIP may be hidden. If "
                "somebody packed it again, unpack it and verify the folder."
            )
        return files

    def sha256(self, name: str) -> str:
        if name not in self._hashes:
            digest = hashlib.sha256()
            with self._read(name) as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
            self._hashes[name] = digest.hexdigest()
        return self._hashes[name]

    def text(self, name: str) -> str:
        with self._read(name) as file:
            body = file.read(_LARGEST_JSON + 1)
        if len(body) > _LARGEST_JSON:
            raise PackageFault(f"{name} is larger than such a file can be.")
        return str(body, "utf-8")

    def json(self, name: str) -> Any:  # noqa: ANN401 - whatever somebody wrote
        def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
            found = dict(pairs)
            if len(found) < len(pairs):
                raise PackageFault(f"{name} has a key twice.")
            return found

        return json.loads(self.text(name), object_pairs_hook=once)


def _is_nothing_but_its_files(package: zipfile.ZipFile, size: int) -> bool:
    """Return whether a ZIP holds nothing but files, their list and its end, as `export` and plain writers write it."""
    infos = sorted(package.infolist(), key=lambda info: info.header_offset)
    starts = [*(info.header_offset for info in infos), package.start_dir]
    if starts[0] != 0:
        return False
    for info, end in zip(infos, starts[1:]):  # noqa: B905 - Python 3.9 has no strict
        least = _ZIP_HEADER + len(_encoded(info)) + info.compress_size
        if end - info.header_offset - least not in _ZIP_SIZES:
            return False
    listed = sum(_ZIP_LISTED + len(_encoded(info)) + len(info.extra) + len(info.comment) for info in infos)
    return size - package.start_dir - listed in _ZIP_ENDS


def _verify(files: _Files, trusted: "dict[str, bytes] | None", report: Findings) -> None:
    if LAST not in files.sizes:
        raise PackageFault(f"{LAST} is missing. It is written last, so this package is incomplete.")
    listing = files.json(LAST)
    if listing["format"] != PACKAGE:
        raise PackageFault(f"{LAST} is not of the format {PACKAGE}: use the verify.py that came with this package.")
    report.notes.append(f"Exported by {listing['exported_by']} at {listing['exported_at']}: {listing['why']}")
    listed = {file["name"]: (file["size"], file["sha256"]) for file in listing["files"]}
    if len(listed) < len(listing["files"]):
        raise PackageFault(f"{LAST} lists a file twice.")
    _check_files(files, listed, report)
    if report.problems:
        return
    _verify_recordings(files, listing["recordings"], trusted, report)
    if dates := listing["not_searched"]:
        report.notes.append(
            f"Dates not searched, or only in part: {len(dates)}, from {dates[0]} to {dates[-1]}. Calls may be missing."
        )
    for lost in listing["not_included"]:
        report.left_out += lost["state"] in _LEFT_OUT
        said = f"{lost['state']}: {lost['reason']}" if lost["reason"] else lost["state"]
        report.notes.append(f"Not in this package: {lost['recording_id'] or 'call ' + lost['uii']} ({said})")


def _check_files(files: _Files, listed: dict[str, tuple[int, str]], report: Findings) -> None:
    """Report each file that is added, missing or altered; `listed`: name -> size and SHA-256."""
    for name in sorted({*listed, *files.sizes} - {LAST}):
        if not (_NAME.fullmatch(name) or name in _FIXED_FILES):
            report.problems.append(f"{_shown(name)} is not the name of a file that a package contains.")
        elif name not in listed:
            report.problems.append(f"{name} is not listed in {LAST}: it was added.")
        elif name not in files.sizes:
            report.problems.append(f"{name} is listed in {LAST}, but is missing.")
        elif (files.sizes[name], files.sha256(name)) != listed[name]:
            report.problems.append(f"{name} is not as it was exported: its bytes were altered.")


def _verify_recordings(
    files: _Files, recordings: list[dict[str, str]], trusted: "dict[str, bytes] | None", report: Findings
) -> None:
    keys = trusted
    if keys is None:
        keys = {}
        for name in sorted(files.sizes):
            if name.startswith("keys/"):
                keys.update(read_keys(files.text(name)))
    _check_names(files, recordings)
    calls = _calls(files, recordings)
    unsigned: Counter[tuple[str, str, str]] = Counter()
    for recording in recordings:
        name = recording["file"]
        try:
            proof = files.json(recording["proof"])
            _check_entry(files, recording, proof)
            _check_identity(recording, proof, *calls[name])
            why = _why_unsigned(proof, keys, is_trusted=trusted is not None)
            if why:
                unsigned[why, proof["manifest"]["key"], proof["merkle_root"]] += 1
            else:
                report.proved += 1
                report.keys.add(proof["signature"]["key_id"])
        except PackageFault as error:
            report.problems.append(f"{name}: {error}")
        except _UNREADABLE:
            report.problems.append(f"{name}: its proof {recording['proof']} is damaged, or no archive wrote it.")
    report.unsigned = sum(unsigned.values())
    for (why, key, root), count in unsigned.items():
        report.notes.append(f"{why} Recordings that this concerns: {count}. Merkle root of {key}: {root}.")


def _check_names(files: _Files, recordings: list[dict[str, str]]) -> None:
    named = [name for recording in recordings for name in (recording["file"], recording["proof"])]
    present = [name for name in files.sizes if name.startswith(("recordings/", "proofs/"))]
    if sorted(named) != sorted(present):
        raise PackageFault(f"{LAST} does not name one proof for each recording.")
    if len({recording["recording_id"] for recording in recordings}) < len(recordings):
        raise PackageFault(f"{LAST} names a recording twice.")


def _calls(files: _Files, recordings: list[dict[str, str]]) -> dict[str, tuple[int, dict[str, str]]]:
    """Return the lines of calls.csv that name a file, by that file, each with its number."""
    csv.field_size_limit(_LARGEST_JSON)
    lines = csv.DictReader(io.StringIO(files.text("calls.csv"), newline=""))
    with_file = [(number, line) for number, line in enumerate(lines, 1) if line["file"]]
    if sorted(line["file"] for _, line in with_file) != sorted(recording["file"] for recording in recordings):
        raise PackageFault("calls.csv does not name each recording once.")
    return {line["file"]: (number, line) for number, line in with_file}


def _check_identity(recording: dict[str, str], proof: dict[str, Any], number: int, call: dict[str, str]) -> None:
    """Raise PackageFault if the listing, calls.csv or the file's name ascribes a recording to another call."""
    entry, manifest, day = proof["entry"], proof["manifest"], recording["date"]
    if (
        recording["file"] != f"recordings/{file_name(number, day, entry['key'])}"
        or manifest["key"] != f"manifests/date={day}/manifest-{manifest['number']}.json"
    ):
        raise PackageFault("its name or its date is not that of the recording that was sealed.")
    for field, sealed in [("date", day), *((field, entry[field] or "") for field in _IDENTITY)]:
        if recording[field] != sealed:
            raise PackageFault(f"{LAST} gives it a different {field} from the one that was sealed.")
        if _plain(call[field]) != _plain(sealed):
            raise PackageFault(f"line {number} of calls.csv gives it a different {field} from the one that was sealed.")


def file_name(number: int, day: object, key: str) -> str:
    """Return the name of a recording's file in the package."""
    return f"{number:05}_{day}_{_UNSAFE.sub('_', key.rpartition('/')[2])[-128:]}"


def _plain(cell: str) -> bytes:
    """Return a cell without the apostrophe that stops a spreadsheet from treating the cell as a formula."""
    return cell.replace("'", "").replace("\0", "").encode("utf-8", "backslashreplace")


def _check_entry(files: _Files, recording: dict[str, str], proof: dict[str, Any]) -> None:
    entry, manifest = proof["entry"], proof["manifest"]
    if (proof["format"], proof["recording"], entry["recording_id"]) != (
        PROOF, recording["file"], recording["recording_id"],
    ):  # fmt: skip
        raise PackageFault("its proof is about another recording.")
    if entry["status"] != "archived":
        raise PackageFault("its entry was not sealed as an archived recording.")
    if (entry["size"], entry["sha256"]) != (files.sizes[recording["file"]], files.sha256(recording["file"])):
        raise PackageFault("its bytes are not those that were sealed.")
    root = root_of(canonical(entry), proof["leaf_index"], proof["tree_size"], proof["path"])
    if root != proof["merkle_root"]:
        raise PackageFault("its entry does not lead to the Merkle root of the manifest: the proof was altered.")
    if not all(_HASH.fullmatch(text) for text in (root, manifest["sha256"])):
        raise PackageFault("its proof contains an invalid SHA-256.")


def _why_unsigned(proof: dict[str, Any], keys: dict[str, bytes], *, is_trusted: bool) -> str:
    """Return why no known key vouches for a proof's root, empty if one does; raise PackageFault for a bad signature."""
    signature, manifest = proof["signature"], proof["manifest"]
    if signature is None:
        return "The manifest is not signed."
    has_root = signature["format"] == SIGNED
    lines = [SIGNED if has_root else SIGNED_WITHOUT_ROOT, manifest["key"], manifest["sha256"]]
    lines += [proof["merkle_root"]] if has_root else []
    if signature["statement"] != "".join(f"{line}\n" for line in lines):
        raise PackageFault("the signature covers another manifest or another Merkle root.")
    key_id = signature["key_id"]
    if key_id not in keys:
        if is_trusted:
            raise PackageFault(f"it is signed with a different key from the one that was given: {_shown(key_id)}.")
        return "The signature was not checked: the public key is not in the package. Give it with --key."
    signed = base64.b64decode(signature["signature"], validate=True)
    if not is_signature(keys[key_id], signature["statement"].encode(), signed):
        raise PackageFault("the signature of its manifest is not valid.")
    earlier = "The signature is of an earlier version: it names no Merkle root, so it does not vouch for a recording."
    return "" if has_root else earlier


def canonical(entry: dict[str, object]) -> bytes:
    """Return an entry as canonical JSON, as its manifest holds it: keys sorted, no blanks, UTF-8."""
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace")


def root_of(leaf: bytes, index: int, size: int, path: list[str]) -> str:
    """Return the root, in hex, to which a path leads from the leaf with that index (from 0) in a tree of that size.

    RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < size:
        raise PackageFault("its place is not in the Merkle tree.")
    at, last = index, size - 1
    found = hashlib.sha256(b"\x00" + leaf).digest()
    for text in path:
        sibling = bytes.fromhex(text)
        if last == 0 or len(sibling) != 32:
            raise PackageFault("its path through the Merkle tree has the wrong length.")
        if at & 1 or at == last:
            found = hashlib.sha256(b"\x01" + sibling + found).digest()
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            found = hashlib.sha256(b"\x01" + found + sibling).digest()
        at, last = at >> 1, last >> 1
    if last:
        raise PackageFault("its path through the Merkle tree has the wrong length.")
    return found.hex()


# Ed25519, RFC 8032: points of the curve are (X, Y, Z, T) with x = X/Z, y = Y/Z and x * y = T/Z. Nothing here is secret.

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)
_NEUTRAL = (0, 1, 1, 0)
_Point = tuple[int, int, int, int]


@lru_cache
def is_signature(public: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether an Ed25519 signature (64 bytes) of a message was made with a key (32 bytes)."""
    key, scalar = _decompressed(public), int.from_bytes(signature[32:], "little")
    if key is None or len(signature) != 64 or scalar >= _ORDER:
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    challenge = int.from_bytes(digest, "little") % _ORDER
    minus = (_P - key[0], key[1], key[2], _P - key[3])
    x, y, z, _ = _sum(_times(scalar, _BASE), _times(challenge, minus))
    x, y = x * pow(z, -1, _P) % _P, y * pow(z, -1, _P) % _P
    return (y | (x & 1) << 255).to_bytes(32, "little") == signature[:32]


def _sum(left: _Point, right: _Point) -> _Point:
    x1, y1, z1, t1 = left
    x2, y2, z2, t2 = right
    a = (y1 - x1) * (y2 - x2) % _P
    b = (y1 + x1) * (y2 + x2) % _P
    c = 2 * t1 * t2 * _D % _P
    d = 2 * z1 * z2 % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _times(count: int, point: _Point) -> _Point:
    result = _NEUTRAL
    while count:
        if count & 1:
            result = _sum(result, point)
        point, count = _sum(point, point), count >> 1
    return result


def _decompressed(encoded: bytes) -> "_Point | None":
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if x * x % _P != square:
        x = x * _ROOT % _P
    if len(encoded) != 32 or y >= _P or x * x % _P != square or (x == 0 and sign):
        return None
    x = x if x & 1 == sign else _P - x
    return (x, y, 1, x * y % _P)


_BASE = _decompressed((4 * pow(5, -1, _P) % _P).to_bytes(32, "little")) or _NEUTRAL


def _shown(name: object) -> str:
    return ascii(name)[:120]


def _encoded(info: zipfile.ZipInfo) -> bytes:
    return info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def main(arguments: "list[str] | None" = None) -> int:
    """Verify what the command line names; return the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(description="Verify an evidence package of RingCX Archive.")
    parser.add_argument("package", nargs="?", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--key", type=Path, help="the archive's public key (PEM), not taken from this package")
    given = parser.parse_args(arguments)
    try:
        trusted = read_keys(given.key.read_text("ascii")) if given.key else None
        given.package.stat()
    except (OSError, ValueError) as error:
        parser.error(f"a file cannot be read: {error}")
    except PackageFault as error:
        parser.error(str(error))
    report = verify(given.package, trusted)
    sys.stdout.write("".join(f"{line}\n" for line in report.lines()))
    if trusted is None and report.keys:
        sys.stdout.write("Compare the fingerprint with the one that the archive's owner gave you separately.\n")
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
