"""What verifies a package, against packages that somebody has altered or made."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.archive.proof.merkle import MerkleTree, leaf_hash
from pipelines.evidence import verify as verified
from pipelines.evidence.verify import PackageFault, canonical, is_signature, main, read_keys, root_of, verify
from tests.evidence.conftest import Exported

Files = dict[str, bytes]
Write = Callable[..., Path]

# RFC 8032, section 7.1: public key, message, and the two halves of the signature.
VECTORS = {
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a": (
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155",
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c": (
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025": (
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac",
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
}


@pytest.mark.parametrize("public", VECTORS)
def test_the_signatures_of_the_standard_are_good_and_any_other_is_not(public: str) -> None:
    message, *halves = VECTORS[public]
    key, text, signed = (bytes.fromhex(part) for part in (public, message, "".join(halves)))
    assert is_signature(key, text, signed)
    assert not is_signature(key, text + b"x", signed)
    order = 2**252 + 27742317777372353535851937790883648493
    larger = (int.from_bytes(signed[32:], "little") + order).to_bytes(32, "little")
    assert not is_signature(key, text, signed[:32] + larger), "a signature has one form"
    for wrong in (b"", signed[:63], signed + b"\0", bytes(64)):
        assert not is_signature(key, text, wrong)
    for wrong in (b"", b"\xff" * 32, bytes(31) + b"\x80", (2).to_bytes(32, "little")):
        assert not is_signature(wrong, text, signed)


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200), st.integers(0, 511))
def test_a_signature_is_good_when_openssls_own_is_and_not_with_any_bit_changed(
    seed: bytes, message: bytes, bit: int
) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public, signed = key.public_key().public_bytes_raw(), bytearray(key.sign(message))
    assert is_signature(public, message, bytes(signed))
    signed[bit // 8] ^= 1 << bit % 8
    assert not is_signature(public, message, bytes(signed))


@settings(deadline=None)
@given(st.integers(1, 70), st.data())
def test_every_path_of_a_tree_proves_its_leaf_and_no_other(size: int, data: Any) -> None:
    leaves = [b"leaf %d" % position for position in range(size)]
    tree = MerkleTree(map(leaf_hash, leaves))
    for index, leaf in enumerate(leaves):
        assert root_of(leaf, index, size, tree.path(index)) == tree.root
    index = data.draw(st.integers(0, size - 1))
    path = tree.path(index)

    def is_refused(leaf: bytes, index: int, size: int, path: list[str]) -> bool:
        try:
            return root_of(leaf, index, size, path) != tree.root
        except PackageFault:
            return True

    assert is_refused(leaves[index] + b"x", index, size, path)
    other = data.draw(st.integers(-1, size + 1).filter(lambda position: position != index))
    assert is_refused(leaves[index], other, size, path)
    assert is_refused(leaves[index], index, size, [*path, "00" * 32])
    if path:
        position = data.draw(st.integers(0, len(path) - 1))
        assert is_refused(leaves[index], index, size, path[:position] + path[position + 1 :])
        altered = hashlib.sha256(bytes.fromhex(path[position])).hexdigest()
        assert is_refused(leaves[index], index, size, [*path[:position], altered, *path[position + 1 :]])


def test_a_node_of_the_tree_is_no_leaf() -> None:
    tree = MerkleTree(map(leaf_hash, (b"a", b"b", b"c", b"d")))
    node = b"".join(map(leaf_hash, (b"a", b"b")))
    assert root_of(node, 0, 2, tree.path(0)[1:]) != tree.root
    assert MerkleTree([]).root == hashlib.sha256(b"").hexdigest()


def listed(files: Files, **changed: Any) -> Files:
    """Return files with a package.json that lists them as they are now."""
    listing = json.loads(files["package.json"])
    others = {name: body for name, body in files.items() if name != "package.json"}
    listing["files"] = [
        {"name": name, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()} for name, body in others.items()
    ]
    return others | {"package.json": json.dumps(listing | changed).encode()}


def names(files: Files, folder: str) -> list[str]:
    return sorted(name for name in files if name.startswith(folder))


def edited(files: Files, change: Callable[[Any], None], place: int = 0) -> Files:
    """Return files with an altered proof, listed as it is then."""
    name = names(files, "proofs/")[place]
    proof = json.loads(files[name])
    change(proof)
    return listed(files | {name: json.dumps(proof).encode()})


def altered_audio(files: Files) -> Files:
    name = names(files, "recordings/")[0]
    return files | {name: files[name][:-1] + b"\x55"}


def swapped_proofs(files: Files) -> Files:
    proof, other = names(files, "proofs/")
    return listed(files | {proof: files[other], other: files[proof]})


def swapped_recordings(files: Files) -> Files:
    listing = json.loads(files["package.json"])["recordings"]
    listing[0]["file"], listing[1]["file"] = listing[1]["file"], listing[0]["file"]
    return listed(files, recordings=listing)


def other_key(files: Files) -> Files:
    """Sign everything with another key, which takes the place of the archive's."""
    key = Ed25519PrivateKey.generate()
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (key_id,) = read_keys(pem.decode())
    files = {name: body for name, body in files.items() if not name.startswith("keys/")} | {f"keys/{key_id}.pem": pem}

    def sign(proof: Any) -> None:
        signed = base64.b64encode(key.sign(proof["signature"]["statement"].encode())).decode()
        proof["signature"] |= {"key_id": key_id, "signature": signed}

    return edited(edited(files, sign), sign, 1)


def swapped_audio(files: Files) -> Files:
    """Give each of two recordings the name of the other, and what belongs to it but for calls.csv."""
    recording, other = names(files, "recordings/")
    files = files | {recording: files[other], other: files[recording]}
    proofs = [f"proofs/{name[11:]}.json" for name in (recording, other)]
    swapped = [
        json.loads(files[proof]) | {"recording": to} for proof, to in zip(proofs, (other, recording), strict=True)
    ]
    files |= {proof: json.dumps(found).encode() for proof, found in zip(proofs, reversed(swapped), strict=True)}
    listing = json.loads(files["package.json"])["recordings"]
    ids = [each["recording_id"] for each in listing]
    return listed(files, recordings=[each | {"recording_id": of} for each, of in zip(listing, ids[::-1], strict=True)])


def counted_twice(files: Files) -> Files:
    """Let the recording of one call stand for that of another, too."""
    recording, other = names(files, "recordings/")
    proof = json.loads(files[f"proofs/{recording[11:]}.json"]) | {"recording": other}
    first, second = json.loads(files["package.json"])["recordings"]
    files = files | {other: files[recording], second["proof"]: json.dumps(proof).encode()}
    return listed(files, recordings=[first, second | {"recording_id": first["recording_id"]}])


def relabelled(**changed: str) -> Callable[[Files], Files]:
    """Let package.json say something else of the first recording."""

    def change(files: Files) -> Files:
        first, *others = json.loads(files["package.json"])["recordings"]
        return listed(files, recordings=[first | changed, *others])

    return change


def with_calls(old: bytes, new: bytes) -> Callable[[Files], Files]:
    def change(files: Files) -> Files:
        assert old in files["calls.csv"]
        return listed(files | {"calls.csv": files["calls.csv"].replace(old, new, 1)})

    return change


def forged_root(proof: Any) -> None:
    """Let an altered entry lead to a root of its own."""
    proof["entry"]["started_at"] = None
    proof["merkle_root"] = root_of(canonical(proof["entry"]), proof["leaf_index"], proof["tree_size"], proof["path"])


def restated(proof: Any) -> None:
    """Name the forged root in the statement too, which the signature does not sign then."""
    forged_root(proof)
    lines = proof["signature"]["statement"].splitlines()
    proof["signature"]["statement"] = "".join(f"{line}\n" for line in [*lines[:3], proof["merkle_root"]])


def proof_with(change: Callable[[Any], None]) -> Callable[[Files], Files]:
    return lambda files: edited(files, change)


def with_file(name: str, body: bytes = b"x") -> Callable[[Files], Files]:
    return lambda files: listed(files | {name: body})


def without(start: str) -> Callable[[Files], Files]:
    return lambda files: {name: body for name, body in files.items() if not name.startswith(start)}


NO_NAME = "is not the name of a file that a package contains"
NO_PROOF = "is damaged, or no archive wrote it"
NO_ROOT = "does not lead to the Merkle root"
CASES: list[tuple[Callable[[Files], Files], str]] = [
    (without("package.json"), "package.json is missing"),
    (altered_audio, "its bytes were altered"),
    (lambda files: listed(altered_audio(files)), "its bytes are not those that were sealed"),
    (without("keys/"), "is listed in package.json, but is missing"),
    (lambda files: files | {"recordings/x.WAV": b"RIFF"}, "it was added"),
    (with_file("recordings/x.WAV"), "one proof for each recording"),
    (with_file("../outside"), NO_NAME),
    (with_file("recordings/../../x"), NO_NAME),
    (with_file("/etc/passwd"), NO_NAME),
    (with_file("recordings/\u202evaw.exe"), NO_NAME),
    (swapped_proofs, "its proof is about another recording"),
    (swapped_recordings, "its proof is about another recording"),
    (swapped_audio, "its name or its date is not that of the recording that was sealed"),
    (counted_twice, "names a recording twice"),
    (relabelled(uii="4711"), "gives it a different uii from the one that was sealed"),
    (relabelled(account_id="4711"), "gives it a different account_id from the one that was sealed"),
    (relabelled(date="2026-11-21"), "its name or its date is not that of the recording that was sealed"),
    (with_calls(b"22/9-1.WAV,", b"22/8-1.WAV,"), "line 1 of calls.csv gives it a different recording_id"),
    (with_calls(b",2026-11-22,", b",2026-11-21,"), "line 1 of calls.csv gives it a different date"),
    (with_calls(b"\r\nrecordings/", b"\r\n,\r\nrecordings/"), "its name or its date is not that of the recording"),
    (with_calls(b"\r\nrecordings/", b"\r\nx"), "calls.csv does not name each recording once"),
    (without("calls.csv"), "missing"),
    (proof_with(lambda proof: proof["entry"].update(status="rejected")), "was not sealed as an archived recording"),
    (proof_with(forged_root), "the signature covers another manifest"),
    (proof_with(restated), "the signature of its manifest is not valid"),
    (proof_with(lambda proof: proof["entry"].update(started_at=None)), NO_ROOT),
    (proof_with(lambda proof: proof.update(leaf_index=8)), NO_ROOT),
    (proof_with(lambda proof: proof["path"].pop()), "has the wrong length"),
    (proof_with(lambda proof: proof.update(tree_size=2)), "its place is not in the Merkle tree"),
    (proof_with(lambda proof: proof.update(path=7)), NO_PROOF),
    (proof_with(lambda proof: proof["signature"].update(signature="?")), NO_PROOF),
    (proof_with(lambda proof: proof["manifest"].update(sha256="0" * 64)), "the signature covers another manifest"),
    (lambda files: listed(files | {names(files, "keys/")[0]: b"no key"}), "contains no Ed25519 public key"),
    (lambda files: listed(files | {names(files, "proofs/")[0]: b'{"format":1,"format":2}'}), "has a key twice"),
    (lambda files: listed(files | {names(files, "proofs/")[0]: b"[" * 100_000}), NO_PROOF),
    (lambda files: files | {"package.json": b"{}"}, "damaged, cut off or not a package"),
    (lambda files: listed(files, format="ringcx-archive/package/9"), "use the verify.py that came with this package"),
]


@pytest.mark.parametrize(("change", "sentence"), CASES)
def test_what_was_altered_is_named_in_a_sentence(
    package: Exported, repacked: Write, tmp_path: Path, change: Callable[[Files], Files], sentence: str
) -> None:
    files = change(package.files)
    paths = [repacked(files)]
    if not any(".." in name or name.startswith("/") for name in files):  # which no folder can have
        paths.append(tmp_path / "unpacked")
        for name, body in files.items():
            (paths[-1] / name).parent.mkdir(parents=True, exist_ok=True)
            (paths[-1] / name).write_bytes(body)
    for path in paths:
        report = verify(path)
        assert report.exit_code == 1
        assert sentence in " ".join(report.problems)
        assert "NOT as it was exported" in report.lines()[-1]


def test_a_package_of_another_key_is_named_by_whoever_has_the_right_one(
    package: Exported, repacked: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own,) = names(package.files, "keys/")
    (tmp_path / "own.pem").write_bytes(package.files[own])
    path = repacked(other_key(package.files))
    assert main([str(path)]) == 0, "by itself it is consistent"
    output = capsys.readouterr().out
    assert "sealed and signed, provided that the archive's owner confirms each key above." in output
    assert own[5:-4] not in output
    assert "Compare the fingerprint" in output
    assert main([str(path), "--key", str(tmp_path / "own.pem")]) == 1
    assert "it is signed with a different key from the one that was given" in capsys.readouterr().out
    assert main([str(package.save(tmp_path / "true.zip")), "--key", str(tmp_path / "own.pem")]) == 0


def test_a_package_without_its_key_is_not_called_proved(package: Exported, repacked: Write) -> None:
    files = listed({name: body for name, body in package.files.items() if not name.startswith("keys/")})
    report = verify(repacked(files))
    assert (report.exit_code, report.proved, report.unsigned) == (3, 0, 2)
    assert "Give it with --key" in " ".join(report.notes)


def test_a_bomb_and_a_package_packed_again_are_refused_unread(package: Exported, repacked: Write) -> None:
    for files in (package.files, {"package.json": bytes(200 << 20)}):
        (problem,) = verify(repacked(files, zipfile.ZIP_DEFLATED)).problems
        assert "claim to be larger than the package" in problem


def test_a_zip_with_anything_but_its_files_is_refused(package: Exported, repacked: Write, tmp_path: Path) -> None:
    other = repacked(listed(altered_audio(package.files))).read_bytes()
    hidden = io.BytesIO()
    with zipfile.ZipFile(hidden, "w") as into:
        for name, body in package.files.items():
            into.writestr(name, body)
            into.writestr(f"hidden/{name}", b"other")
            if name != "verify.py":
                del into.filelist[-1], into.NameToInfo[f"hidden/{name}"]
        into.filelist = [info for info in into.filelist if not info.filename.startswith("hidden/")]
    for body in (
        b"MZ" + package.body,
        other + package.body,
        package.body + other,
        package.body + b"\0",
        hidden.getvalue(),
    ):
        path = tmp_path / "around.zip"
        path.write_bytes(body)
        report = verify(path)
        assert report.exit_code == 1
        assert report.problems
    path.write_bytes(other + package.body)
    assert "where another ZIP may be hidden" in verify(path).problems[0]
    assert verify(repacked(package.files)).exit_code == 0


def test_a_link_in_a_zip_is_named(package: Exported, tmp_path: Path) -> None:
    path = tmp_path / "link.zip"
    with zipfile.ZipFile(path, "w") as into:
        for name, body in package.files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name == "calls.csv" else 0o100644) << 16
            into.writestr(info, body)
    assert verify(path).problems == ["'calls.csv' is a link or a folder, which no package contains."]


def test_what_computers_leave_in_a_folder_is_no_alarm(package: Exported, tmp_path: Path) -> None:
    folder = package.unpack(tmp_path / "package")
    left = (".DS_Store", "recordings/Thumbs.db", "Desktop.ini", "__MACOSX/._x", "__pycache__/x.pyc", "keys/._x")
    for name in left:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    report = verify(folder)
    assert (report.exit_code, report.proved) == (0, 2)
    sentence = "Ignored, because the operating system adds such files: "
    assert {f"{sentence}{name!r}" for name in left} <= set(report.notes)


@pytest.mark.parametrize("flags", [[], ["-I"]])
def test_verify_py_imports_nothing_that_lies_next_to_it(package: Exported, tmp_path: Path, flags: list[str]) -> None:
    folder = package.unpack(tmp_path / "package")
    for name in ("__future__", "argparse", "json", "zipfile", "sitecustomize", "typing"):
        (folder / f"{name}.py").write_text("import os\nprint('Proved: 9 of 9')\nos._exit(0)\n")
    done = subprocess.run(
        [sys.executable, *flags, "verify.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Proved" in done.stdout, done.stderr) == (1, False, "")
    assert "'json.py' is not the name of a file that a package contains." in done.stdout


def test_verify_py_is_also_for_python_3_9() -> None:
    source = Path(verified.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    annotations = [each.annotation for node in functions for each in node.args.args] + [
        each.returns for each in functions
    ]
    evaluated = [each for part in annotations if part is not None for each in ast.walk(part)]
    assert not [each for each in evaluated if isinstance(each, ast.BinOp)], "quote it: 3.9 has no X | Y"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_name_that_the_terminal_cannot_show_is_no_alarm(package: Exported, tmp_path: Path, encoding: str) -> None:
    folder = package.unpack(tmp_path / "package")
    listing = json.loads(package.files["package.json"])
    (folder / "package.json").write_text(json.dumps(listing | {"exported_by": "\u0141ukasz"}))
    done = subprocess.run(
        [sys.executable, "verify.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Exported by \\u0141ukasz" in done.stdout


@pytest.mark.parametrize("state", ["not proved", "withheld", "altered"])
def test_a_recording_of_the_archive_that_was_left_out_is_counted(
    package: Exported, repacked: Write, state: str
) -> None:
    lost = {"recording_id": "r9", "uii": "u9", "state": state, "reason": "Nothing is stored there now."}
    report = verify(repacked(listed(package.files, not_included=[lost])))
    assert (report.exit_code, report.proved, report.left_out) == (1, 2, 1)
    assert "Proved: 2 of 3 recordings" in report.lines()[-1]
    assert "INCOMPLETE" in report.lines()[-1]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_there_twice_is_named(package: Exported, tmp_path: Path) -> None:
    path = package.save(tmp_path / "package.zip")
    with zipfile.ZipFile(path, "a") as into:
        into.writestr("calls.csv", "other")
    assert "'calls.csv' is in the package twice." in verify(path).problems


def test_a_link_in_a_folder_is_not_followed(package: Exported, tmp_path: Path) -> None:
    folder = package.unpack(tmp_path / "package")
    (folder / "calls.csv").unlink()
    (folder / "calls.csv").symlink_to("/etc/hostname")
    assert "'calls.csv' is a link, which no package contains." in verify(folder).problems


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_to_a_package_passes_or_ends_in_anything_but_sentences(
    package: Exported, tmp_path: Path, data: Any
) -> None:
    body = bytearray(package.body)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(body) - 1))
        kind = data.draw(st.sampled_from(["byte", "cut", "add"]))
        if kind == "byte":
            body[position] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del body[position : position + data.draw(st.integers(1, 5000))]
        else:
            body[position:position] = data.draw(st.binary(min_size=1, max_size=50))
        if not body:
            break
    path = tmp_path / "damaged.zip"
    path.write_bytes(body)
    report = verify(path)
    if report.exit_code != 1:
        # What differs is nothing that anybody unpacks: all files are as they were.
        with zipfile.ZipFile(io.BytesIO(body)) as opened:
            assert {name: opened.read(name) for name in opened.namelist()} == package.files


@pytest.mark.parametrize("arguments", [["there-is-none.zip"], ["--key", "/etc/hostname"], ["--key", "there-is-none"]])
def test_a_mistake_on_the_command_line_ends_with_a_sentence_and_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err
