"""The sandbox's truth, counters and knobs over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from sandbox import Credentials, Faults, Limits, RunningSandbox, SandboxConfig, Where, demo_config
from tests.sandbox.conftest import Asker, Clock


def test_the_truth_holds_what_the_reports_link(start: Callable[..., Asker]) -> None:
    source = start()
    listed = source.sandbox.truth("2026-03-09")
    rows = source.calls("2026-03-09T00:00:00.000-0000", "2026-03-09T23:59:59.999-0000").json()
    linked = {row["recordingUrl"].split("file=")[1].split("&")[0] for row in rows if row["recordingUrl"]}
    assert {item["file"] for item in listed if item["layout"] == "mono"} == linked
    assert {item["account_id"] for item in listed} == {"15300002"}
    assert all(item["recording_id"] == f"15300002/{item['file']}" for item in listed)


def test_the_truth_is_divided_by_local_days(start: Callable[..., Asker]) -> None:
    source = start()
    zone = ZoneInfo("US/Arizona")
    local = source.sandbox.truth("2026-03-08", timezone="US/Arizona")
    assert {datetime.fromisoformat(item["start"]).astimezone(zone).date().isoformat() for item in local} == {
        "2026-03-08"
    }
    assert {item["file"] for item in local} != {item["file"] for item in source.sandbox.truth("2026-03-08")}


def test_the_truth_of_today_grows_and_of_tomorrow_is_empty(start: Callable[..., Asker], clock: Clock) -> None:
    source = start(calls_per_day=(200, 200))
    before = len(source.sandbox.truth("2026-03-10"))
    clock.advance(4 * 3600)
    assert 0 < before < len(source.sandbox.truth("2026-03-10"))
    assert source.sandbox.truth("2026-03-12") == []


def test_the_truth_names_faults_and_what_they_lead_to(start: Callable[..., Asker]) -> None:
    source = start(faults=Faults(not_found=Where(share=0.3), late_links=Where(share=0.3, first=1)))
    listed = source.sandbox.truth("2026-03-09")
    for item in listed:
        assert item["expected"] == ("missing" if "not_found" in item["faults"] else "archived")
    assert {name for item in listed for name in item["faults"]} == {"not_found", "late_links"}


@pytest.mark.parametrize("query", ["", "?date=yesterday", "?date=2026-03-09&timezone=Nowhere"])
def test_a_truth_without_a_date_or_zone_is_refused(start: Callable[..., Asker], query: str) -> None:
    source = start()
    assert source.http.get(f"{source.sandbox.url}/sandbox/truth{query}").status_code == 400


def test_requests_are_counted_by_kind_path_and_report(start: Callable[..., Asker]) -> None:
    source = start()
    item = source.sandbox.truth("2026-03-09")[0]
    for _ in range(3):
        source.media(item["file"])
    source.agents("inbound", "2026-03-09 00:00:00", "2026-03-09 01:00:00")
    counted = source.sandbox.counters()
    assert counted["requests"] == {"media": 3, "report": 1}
    assert counted["media_by_path"] == counted["media_complete_by_path"] == {item["file"]: 3}
    assert counted["media_bytes"] == 3 * item["size"]
    assert counted["reports"] == {"15300002/agent_segment_metadata/inbound": 1}
    assert counted["statuses"] == {"media 200": 3, "report 200": 1}
    assert counted["user_agents"] == {"tests/1": 3}


def test_the_peak_of_concurrency_is_counted_until_the_last_byte(start: Callable[..., Asker]) -> None:
    source = start(faults=Faults(slow=Where(share=1), slow_bytes_per_s=200_000))
    files = [item["file"] for item in source.sandbox.truth("2026-03-09")[:6]]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(source.media, files))
    assert source.sandbox.counters()["peak_concurrency"]["media"] == 6


def test_an_unfinished_download_is_not_counted_as_complete(start: Callable[..., Asker]) -> None:
    source = start(faults=Faults(cut_off=Where(share=1, first=1)))
    item = source.sandbox.truth("2026-03-09")[0]
    with pytest.raises(Exception, match="peer closed"):
        source.media(item["file"])
    counted = source.sandbox.counters()
    assert counted["media_by_path"] == {item["file"]: 1}
    assert counted["media_complete_by_path"] == {}
    assert counted["statuses"]["fault cut_off"] == 1


@pytest.mark.parametrize(
    ("headers", "header"), [({"X-Auth-Token": "t"}, "x-auth-token"), ({"Authorization": "Bearer t"}, "authorization")]
)
def test_a_log_in_token_sent_to_a_recording_is_noted(
    start: Callable[..., Asker], headers: dict[str, str], header: str
) -> None:
    source = start()
    item = source.sandbox.truth("2026-03-09")[0]
    source.media(item["file"], headers=headers)
    assert source.sandbox.counters()["leaked_credentials"] == [
        {"where": "media", "header": header, "path": item["file"]}
    ]


def test_credentials_out_of_a_link_are_noted(start: Callable[..., Asker]) -> None:
    source = start(faults=Faults(link_credentials=Where(share=1)))
    rows = source.calls("2026-03-09T00:00:00.000-0000", "2026-03-09T23:59:59.999-0000").json()
    source.http.get(next(row["recordingUrl"] for row in rows if row["recordingUrl"]))
    assert [leak["where"] for leak in source.sandbox.counters()["leaked_credentials"]] == ["link_credentials"]


def test_a_hostile_host_is_seen_when_it_is_asked(start: Callable[..., Asker]) -> None:
    source = start(faults=Faults(link_evil_host=Where(share=1)))
    rows = source.calls("2026-03-09T00:00:00.000-0000", "2026-03-09T23:59:59.999-0000").json()
    source.http.get(next(row["recordingUrl"] for row in rows if row["recordingUrl"]))
    assert source.sandbox.counters()["requests"]["evil_host"] == 1


def test_a_reset_forgets_counts_and_knobs_but_not_log_ins(start: Callable[..., Asker]) -> None:
    source = start(faults=Faults(not_yet=Where(share=1, first=1)))
    item = source.sandbox.truth("2026-03-09")[0]
    assert [source.media(item["file"]).status_code for _ in range(2)] == [404, 200]
    source.sandbox.set_faults({"forbidden": 1})
    assert source.media(item["file"]).status_code == 403
    source.sandbox.reset()
    assert source.sandbox.counters()["requests"] == {}
    assert [source.media(item["file"]).status_code for _ in range(2)] == [404, 200]


def test_knobs_can_be_replaced_or_added_to(start: Callable[..., Asker]) -> None:
    source = start(faults=Faults(mp3=Where(share=1)))
    url = f"{source.sandbox.url}/sandbox/faults"
    assert source.http.patch(url, json={"forbidden": 0.5}).json()["mp3"]["share"] == 1
    replaced = source.http.put(url, json={"forbidden": 0.5}).json()
    assert (replaced["mp3"]["share"], replaced["forbidden"]["share"]) == (0, 0.5)
    assert source.http.get(url).json() == replaced
    assert source.http.put(url, json={"nonsense": 1}).status_code == 400
    assert source.http.put(url, content=b"{").status_code == 400


def test_settings_survive_json() -> None:
    config = SandboxConfig(
        accounts=("1", "2"),
        calls_per_day=(1, 2),
        limits=Limits(media="1/1"),
        credentials=Credentials(jwt="j"),
        faults=Faults(mp3=Where(0.5, ("a",), 1)),
    )
    assert SandboxConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(ValueError, match="nonsense"):
        SandboxConfig.from_json({"nonsense": 1})


def test_the_environment_points_an_archiver_here(start: Callable[..., Asker]) -> None:
    sandbox = start().sandbox
    common = {
        "RINGCX_ACCOUNT_IDS": "15300002",
        "RINGCX_API_URL": f"{sandbox.url}/voice/api",
        "RINGCX_AUTH_URL": sandbox.url,
        "RINGCENTRAL_URL": sandbox.url,
        "RINGCX_MEDIA_HOSTS": sandbox.host,
        "RINGCX_RC_ACCOUNT_ID": "37439510",
    }
    for login, names in {
        "jwt": {"RINGCENTRAL_CLIENT_ID", "RINGCENTRAL_CLIENT_SECRET", "RINGCENTRAL_JWT"},
        "password": {"RINGCX_USERNAME", "RINGCX_PASSWORD"},
        "token": {"RINGCX_API_TOKEN"},
    }.items():
        variables = sandbox.environment(login=login)
        assert common.items() <= variables.items()
        assert set(variables) - set(common) == names


def test_a_sandbox_in_a_process_of_its_own_tells_the_same_truth(start: Callable[..., Asker]) -> None:
    here = start(talk_seconds=(3, 20)).sandbox.truth("2026-03-01")
    with RunningSandbox(SandboxConfig(), own_process=True) as there:
        assert there.truth("2026-03-01") == here
        assert there.counters()["requests"] == {}


def test_the_demo_shows_some_of_everything_within_its_size() -> None:
    with RunningSandbox(demo_config()) as demo:
        days = [demo.truth(f"2026-02-{day:02d}") for day in range(2, 9)]
    sizes = [sum(item["size"] for item in day) for day in days]
    assert min(sizes) > 3_000_000
    assert max(sizes) < 32_000_000
    expected = {item["expected"] for day in days for item in day}
    assert expected == {"archived", "missing", "rejected", "denied"}
    assert all(any(item["expected"] != "archived" for item in day) for day in days)
    faults = {name for day in days for item in day for name in item["faults"]}
    assert {"late_links", "not_yet", "html_200", "not_found", "still_encoding", "cut_off"} <= faults
