"""Every object has one harmless key, and no two recordings share one."""

import re
from collections.abc import Callable
from datetime import date
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.archive.keys import (
    apart_key,
    catalog_key,
    copy_key,
    day_prefix,
    manifest_key,
    manifest_number,
    metadata_text,
    recording_key,
)

DAY = date(2020, 7, 30)
SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,159}", re.ASCII)
HOSTILE = st.text(max_size=400) | st.sampled_from(
    [
        "",
        ".",
        "..",
        "../..",
        "a/../..",
        "a\0b.wav",
        "a\nb",
        "x\u202egnp.WAV",
        "a%2fb",
        "a\\b",
        "é.wav",
        "\ud800",
        "a" * 500,
    ]
)


def name_of(path: str) -> str:
    return recording_key("", DAY, "1", "mono", path).rpartition("/")[2]


def test_a_key_is_the_one_in_the_design() -> None:
    key = recording_key("p/", DAY, "15300002", "mono", "15300002/202007/30/202007302136360132130000036446-1.WAV")
    assert key == ("p/recordings/date=2020-07-30/account_id=15300002/layout=mono/202007302136360132130000036446-1.WAV")
    assert key.startswith(day_prefix("p/", DAY))


def test_the_other_names_are_the_ones_in_the_design() -> None:
    assert manifest_key("p/", DAY, 3) == "p/manifests/date=2020-07-30/manifest-3.json"
    assert catalog_key("", DAY) == "catalog/date=2020-07-30/recordings.parquet"


@given(HOSTILE, HOSTILE, st.sampled_from(["mono", "stereo"]))
def test_a_hostile_path_or_account_stays_one_harmless_segment(path: str, account: str, layout: str) -> None:
    key = recording_key("", DAY, account, layout, path)
    assert key == recording_key("", DAY, account, layout, path)
    root, day, account_part, layout_part, name = key.split("/")
    assert (root, day, layout_part) == ("recordings", "date=2020-07-30", f"layout={layout}")
    assert SEGMENT.fullmatch(account_part.removeprefix("account_id="))
    assert SEGMENT.fullmatch(name)
    assert len(name) <= 128
    assert len(key) <= 300


@given(HOSTILE, HOSTILE)
@example("a/..", "b/..")
@example("a/", "b/")
@example("é.wav", "è.wav")
@example("a" * 129, "a" * 130)
def test_different_paths_share_a_name_only_when_it_is_their_own(first: str, second: str) -> None:
    same = name_of(first) == name_of(second)
    own = name_of(first) == first.rpartition("/")[2] and name_of(second) == second.rpartition("/")[2]
    assert same == (first == second or (own and first.rpartition("/")[2] == second.rpartition("/")[2]))


@pytest.mark.parametrize("shout", [str, str.upper])
def test_a_source_cannot_choose_the_hashed_name_of_another_recording(shout: Callable[[str], str]) -> None:
    victim = name_of("a/é.wav")
    assert victim.startswith("sha256-")
    assert name_of(shout(victim)).lower() != victim.lower()


def test_different_accounts_never_share_a_folder() -> None:
    accounts = ["1", "1/", "../1", "", ".", "1\0"]
    assert len({recording_key("", DAY, account, "mono", "a.wav") for account in accounts}) == len(accounts)


@given(HOSTILE, HOSTILE, HOSTILE)
def test_a_key_apart_is_next_to_it_and_differs_for_each_recording(path: str, first: str, second: str) -> None:
    key = recording_key("p/", DAY, "1", "mono", path)
    apart = apart_key(key, first)
    assert apart != key
    assert apart.rpartition("/")[0] == key.rpartition("/")[0]
    assert SEGMENT.fullmatch(apart.rpartition("/")[2])
    assert (apart == apart_key(key, second)) == (first == second)


def test_a_key_apart_keeps_the_suffix() -> None:
    assert re.fullmatch(r"x/a-1-[0-9a-f]{8}\.WAV", apart_key("x/a-1.WAV", "id"))
    assert re.fullmatch(r"x/a-[0-9a-f]{8}", apart_key("x/a", "id"))


@given(HOSTILE, HOSTILE)
def test_a_conflict_and_a_quarantine_are_named_by_the_recordings_key_and_the_hash(path: str, account: str) -> None:
    digest = "0123456789abcdef" * 4
    key = recording_key("p/", DAY, account, "stereo", path)
    folders: tuple[Literal["conflicts", "quarantine"], ...] = ("conflicts", "quarantine")
    for folder in folders:
        copy_folder, _, name = copy_key(folder, "p/", key, digest).rpartition("/")
        assert copy_folder == key.rpartition("/")[0].replace("p/recordings/", f"p/{folder}/")
        assert name == f"0123456789abcdef-{key.rpartition('/')[2]}"


@given(st.integers(1, 10**9))
def test_a_manifests_number_is_read_back(number: int) -> None:
    assert manifest_number(manifest_key("p/", DAY, number)) == number


@pytest.mark.parametrize("name", ["manifest-0.json", "manifest-01.json", "manifest-1.json.tmp", "manifest-٣.json", "x"])
def test_anything_else_has_no_number(name: str) -> None:
    assert manifest_number(f"p/manifests/date=2020-07-30/{name}") is None


@given(HOSTILE | st.text(max_size=2000), HOSTILE)
@example("a" * 600, "b" * 600)
def test_metadata_is_short_ascii_and_tells_strings_apart(text_a: str, text_b: str) -> None:
    text = metadata_text(text_a)
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text
    assert len(text) <= 512
    assert (text == metadata_text(text_b)) == (text_a == text_b)
