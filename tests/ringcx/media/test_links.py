"""Links to recordings: how they are read, and which hosts are allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ringcx.errors import LinkRefused
from pipelines.ringcx.links import HostList, RecordingLink, parse_link
from tests.ringcx.media.conftest import FILE, HOST, LINK, OTHER


@given(
    path=st.text("abcWAV0129./-_", max_size=20),
    before=st.lists(st.sampled_from(["v=1", "file=x.WAV", "accountId=", "Region=us-east-1"]), max_size=3),
    host=st.sampled_from([HOST, "xn--a.example.com", "a--b.example.com", "A.example.com", "1.2.3.4", "a..b"]),
)
def test_a_plain_link_says_the_same_as_the_same_link_with_a_fragment(path: str, before: list[str], host: str) -> None:
    link = f"https://{host}/api/v1/?{'&'.join([*before, f'file={path}', 'compliance=true'])}"

    def read(text: str) -> str:
        try:
            return parse_link(text, "15300002").recording_id
        except LinkRefused as refusal:
            return refusal.reason

    assert read(link) == read(f"{link}#")


def test_a_published_link_is_read() -> None:
    assert parse_link(LINK, "15300002") == RecordingLink(url=LINK, recording_id=f"15300002/{FILE}")


@pytest.mark.parametrize(
    "variant",
    [
        LINK.replace("/recordings/?", "/recordings?"),
        LINK.replace("&file=", "& file= ").replace("&bucket", " &bucket"),
        f"https://{HOST.upper()}/api/v1/calls/recordings?file={FILE}&v=1&compliance=true",
        f"  https://{OTHER}/elsewhere?file={FILE}&region=us-west-2\n",
        f"https://{HOST}/api/v1/calls/recordings?fi%6Ce={FILE.replace('/', '%2F')}",
        f"http://{HOST}:8080/?file={FILE}#part",
        LINK.replace(FILE, FILE[:20] + " \u00a0\t" + FILE[20:]),
    ],
)
def test_the_same_recording_has_the_same_id_however_its_link_is_written(variant: str) -> None:
    link = parse_link(variant, "15300002")
    assert link.recording_id == f"15300002/{FILE}"
    assert not any(char.isspace() for char in link.url)


@pytest.mark.parametrize("who", ["user:hush@", "user@", ""])
def test_credentials_in_a_link_do_not_change_which_recording_it_is(who: str) -> None:
    assert parse_link(f"https://{who}{HOST}/?file={FILE}", "7").recording_id == f"7/{FILE}"


def test_a_stereo_path_is_kept_whole() -> None:
    path = "perspective/15300002/202008/05/202008051517160139120000000370-session-2-stereo.WAV"
    link = f"https://{OTHER}/api/v1/calls/recordings?accountId=15300002&file={path}"
    assert parse_link(link, "7").recording_id == f"7/{path}"


def test_a_link_without_a_file_is_known_by_its_path_and_its_query() -> None:
    link = parse_link("https://ringcx.example/voice/api/recordings/dialogs/s-v-1/segments/p-v%2F2", "7")
    assert link.recording_id == "7/voice/api/recordings/dialogs/s-v-1/segments/p-v/2"
    known = parse_link("https://ringcx.example/a/?B=2&a=1", "7").recording_id
    assert known.startswith("7/a/?")
    assert parse_link("https://ringcx.example/a/?A=1&b=2", "7").recording_id == known
    assert parse_link("https://ringcx.example/a/?A=1&b=3", "7").recording_id != known


@pytest.mark.parametrize(
    "name", ["X-Amz-Signature", "X-Amz-Date", "Expires", "Signature", "token", "access_token", "sig"]
)
def test_a_link_signed_anew_is_the_same_recording_and_its_id_holds_no_secret(name: str) -> None:
    first, second = (parse_link(f"https://ringcx.example/a?id=5&{name}={value}", "7") for value in ("one", "two"))
    assert first.recording_id == second.recording_id
    assert parse_link("https://ringcx.example/a?id=6", "7").recording_id != first.recording_id
    assert "s3cret" not in parse_link("https://ringcx.example/a?id=5&key=s3cret", "7").recording_id


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a/../../etc/passwd", "a/../../etc/passwd"),
        ("a/b%00.WAV", "a/b\0.WAV"),
        ("a/%252e.WAV", "a/%2e.WAV"),
        ("a/b+c.WAV", "a/b+c.WAV"),
        ("a/%E9.WAV", "a/é.WAV"),
        ("a/ü.WAV", "a/ü.WAV"),
        ("a/100%.WAV", "a/100%.WAV"),
    ],
)
def test_a_file_path_is_decoded_once_and_otherwise_left_alone(written: str, read: str) -> None:
    assert parse_link(f"https://{HOST}/?file={written}", "1").recording_id == f"1/{read}"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "malformed"),
        ("   ", "malformed"),
        ("not a link", "malformed"),
        (f"{HOST}/?file=a", "malformed"),
        ("https://", "malformed"),
        ("https:///?file=a", "malformed"),
        (f"https://evil.example\\.{HOST}/?file=a", "malformed"),
        (f"https://evil%2eexample.{HOST}/?file=a", "malformed"),
        (f"https://{HOST}:port/?file=a", "malformed"),
        (f"https://{HOST}/?file=a\x00b", "malformed"),
        ("https://[::1/?file=a", "malformed"),
        ("https://\ud800/?file=a", "malformed"),
        (f"ftp://{HOST}/?file=a", "not_https"),
        ("javascript:alert(1)", "not_https"),
        (f"https://{HOST}", "no_file"),
        (f"https://{HOST}/?", "no_file"),
        (f"https://{HOST}/?file=a&file=b", "several_files"),
        (LINK + "x" * 4096, "too_long"),
    ],
)
def test_a_link_that_must_not_be_used_is_refused_by_name(raw: str, reason: str) -> None:
    with pytest.raises(LinkRefused) as refused:
        parse_link(raw, "1")
    assert refused.value.reason == reason
    assert "hush" not in str(refused.value)


@given(st.one_of(st.text(), st.text().map(lambda s: f"https://{s}"), st.text().map(lambda s: LINK + s)))
def test_any_text_is_a_link_or_refused(raw: str) -> None:
    try:
        link = parse_link(raw, "1")
    except LinkRefused:
        return
    account, _, file_path = link.recording_id.partition("/")
    assert account == "1"
    assert file_path.strip("/")
    assert parse_link(link.url, "1") == link


def test_the_repr_of_a_link_hides_the_address() -> None:
    assert "https" not in repr(parse_link(LINK, "1"))


@pytest.mark.parametrize(
    "url",
    [
        "https://a.vacd.biz/x",
        "https://A.B.VACD.biz./x?y",
        "https://a.vacd.biz:443/",
        "https://exact.example/",
        "https://port.example:8443/",
        "https://xn--bcher-kva.example/",
        "https://BÜCHER.example/",
        "http://localhost:9000/",
        "https://localhost/",
        "http://127.0.0.1:1234/",
        "http://[::1]:8080/",
        "http://[0:0:0:0:0:0:0:1]:8080/",
        "https://10.0.0.7/",
    ],
)
def test_a_listed_host_is_allowed(url: str) -> None:
    HostList(
        [
            "*.vacd.biz", "exact.Example", "port.example:8443", "bücher.example",
            "localhost", "127.0.0.1", "[::1]:8080", "10.0.0.7", "",
        ]
    ).require(url)  # fmt: skip


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://vacd.biz/", "host_not_allowed"),
        ("https://evilvacd.biz/", "host_not_allowed"),
        ("https://a.vacd.biz.evil.example/", "host_not_allowed"),
        ("https://evil.example/.vacd.biz", "host_not_allowed"),
        ("https://evil.example#.vacd.biz", "host_not_allowed"),
        ("https://evil.example?.vacd.biz", "host_not_allowed"),
        ("https://a.vacd.biz:8443/", "host_not_allowed"),
        ("https://port.example/", "host_not_allowed"),
        ("https://sub.exact.example/", "host_not_allowed"),
        ("https://127.0.0.1:9000/", "host_not_allowed"),
        ("https://127.0.0.2/", "host_not_allowed"),
        ("https://169.254.169.254/", "host_not_allowed"),
        ("http://a.vacd.biz/", "not_https"),
        ("http://exact.example/", "not_https"),
        ("http://127.0.0.1.vacd.biz/", "not_https"),
        ("http://localhost.vacd.biz/", "not_https"),
        ("ftp://a.vacd.biz/", "not_https"),
        ("file:///etc/passwd", "not_https"),
        ("https://u:p@a.vacd.biz/", "credentials_in_url"),
        ("https://a.vacd.biz\\@evil.example/", "credentials_in_url"),
        ("https://evil.example\\.vacd.biz/", "malformed"),
        ("https://evil.example%2f.vacd.biz/", "malformed"),
        ("//a.vacd.biz/", "malformed"),
        ("", "malformed"),
    ],
)
def test_any_other_address_is_refused(url: str, reason: str) -> None:
    hosts = HostList(["*.vacd.biz", "exact.example", "port.example:8443", "127.0.0.1:8000"])
    with pytest.raises(LinkRefused) as refused:
        hosts.require(url)
    assert refused.value.reason == reason


def test_an_empty_list_allows_nothing() -> None:
    with pytest.raises(LinkRefused):
        HostList([]).require("https://a.vacd.biz/")


@pytest.mark.parametrize("entry", ["*", "*.", "https://host", "host/path", "user@host", "a b", "*.*.biz", "h:port"])
def test_an_entry_that_is_no_host_is_refused_with_its_setting(entry: str) -> None:
    with pytest.raises(ValueError, match="RINGCX_MEDIA_HOSTS"):
        HostList([entry])
