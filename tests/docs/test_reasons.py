"""Reasons in words, as the page of a call and the certificate show them."""

import re
from pathlib import Path

import pytest

from pipelines.wording import reason_in_words

_TABLE = (Path(__file__).parents[2] / "docs/troubleshooting.md").read_text().partition("## Why a recording is not")[2]
_CELLS = re.findall(r"^\| (`.*?) \|", _TABLE, re.MULTILINE)
_CODES = [code for cell in _CELLS for code in re.findall(r"`([^`]+)`", cell)]
REASONS = [f"link_refused{code}" if code.startswith(":") else code.replace("<status>", "418") for code in _CODES]


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_that_troubleshooting_explains_is_shown_in_words(reason: str) -> None:
    words = reason_in_words(reason)
    assert " " in words
    assert "_" not in words


def test_words_keep_what_only_the_source_knows() -> None:
    assert len(REASONS) > 30
    assert reason_in_words("http_418") == "the source answers with an error (418)"
    assert reason_in_words("link_refused:too_long") == "its link must not be requested (too long)"
    assert reason_in_words("no_link:abandon") == "no report has a link to one (abandon)"
    assert reason_in_words("of_a_later_version") == "of_a_later_version"


def test_a_pending_recording_is_one_that_the_source_does_not_have_yet() -> None:
    assert reason_in_words("not_found", "missing") == "the source does not have it"
    assert reason_in_words("not_found", "pending") == "the source does not have it yet"
