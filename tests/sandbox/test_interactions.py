"""The sandbox's current API behaves as the vendor's pages say, its limits and refusals included."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from sandbox import Faults, Limits, Where
from tests.sandbox.conftest import Asker, Clock

FREE = Limits(reports="none", exchange="none", media="none", metadata="none", download="none")
DAY = [f"2026-03-09 {hour:02d}:00:00" for hour in range(0, 24, 3)]


def bearer(source: Any) -> dict[str, str]:
    oauth = source.http.post(
        f"{source.sandbox.url}/restapi/oauth/token",
        data={"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "sandbox.user.jwt"},
        auth=("sandbox-client", "sandbox-client-secret"),
    ).json()["access_token"]
    pair = source.http.post(
        f"{source.sandbox.url}/api/auth/login/rc/accesstoken",
        data={"rcAccessToken": oauth, "rcTokenType": "Bearer"},
    ).json()
    return {"Authorization": f"Bearer {pair['accessToken']}"}


def below(source: Any, path: str, account: str = "15300002") -> str:
    return f"{source.sandbox.url}/voice/api/cx/integration/v1/accounts/37439510/sub-accounts/{account}/{path}"


def metadata(
    source: Any, start: str, *, interval: Any = 10_800, zone: str = "UTC", account: str = "15300002", **more: Any
) -> httpx.Response:
    body = {"segmentEndTime": start, "timeInterval": interval, "timeZone": zone}
    headers = more.get("headers") or {"X-Auth-Token": source.sandbox.config.credentials.api_token}
    return source.http.post(below(source, "interaction-metadata", account), json=body, headers=headers)


def test_a_days_windows_tell_of_every_recording_of_a_leg_once(start: Callable[..., Asker]) -> None:
    source = start(limits=FREE)
    rows = {row["segmentId"]: row for window in DAY for row in metadata(source, window).json()}
    listed = [recording for recording in source.sandbox.truth("2026-03-09") if recording["segment"]]
    assert listed
    for recording in listed:
        row = rows.get(recording["segment"]["segment_id"])
        if row is None:  # it ended on the next day
            assert recording["start"] > "2026-03-09T23:59"
            continue
        assert (row["dialogId"], row["interactionId"]) == (recording["segment"]["dialog_id"], recording["uii"])
        assert row["hasRecording"] is True
        assert datetime.fromisoformat(row["segmentStartTimeMs"]) == datetime.fromisoformat(recording["start"])
    assert {row["channelClass"] for row in rows.values()} == {"VOICE", "DIGITAL"}
    assert {row["segmentType"] for row in rows.values()} == {"AGENT", "IVR"}
    assert any(row["segmentEvents"] is None for row in rows.values())
    ended = [datetime.fromisoformat(row["segmentEndTimeMs"]) for row in metadata(source, DAY[4]).json()]
    first = datetime.fromisoformat(f"{DAY[4]}+00:00")
    assert all(first <= end <= first + timedelta(hours=3) for end in ended)


def test_a_zone_is_understood(start: Callable[..., Asker]) -> None:
    source = start(limits=FREE)
    here = metadata(source, "2026-03-09 11:00:00", zone="US/Eastern").json()  # the clocks had just gone forward
    assert [segment["segmentId"] for segment in here] == [
        segment["segmentId"] for segment in metadata(source, DAY[5]).json()
    ]


@pytest.mark.parametrize(
    ("window", "interval", "zone", "details"),
    [
        ("2026-03-09 00:00:00", 10_801, "UTC", "up to 10800"),
        ("2026-03-09 00:00:00", 0, "UTC", "up to 10800"),
        ("2026-03-09 00:00:00", "10800", "UTC", "number of seconds"),
        ("2026-03-10 17:00:00", 10_800, "UTC", "not over"),
        ("2026-03-09T00:00:00", 10_800, "UTC", "cannot be read"),
        ("2026-03-09 00:00:00", 10_800, "Mars/Olympus", "cannot be read"),
    ],
)
def test_a_window_that_there_is_not_is_answered_400_as_json(
    start: Callable[..., Asker], window: str, interval: Any, zone: str, details: str
) -> None:
    answer = metadata(start(limits=FREE), window, interval=interval, zone=zone)
    assert answer.status_code == 400
    assert set(answer.json()) == {"generalMessage", "details", "requestUri", "timestamp"}
    assert details in answer.json()["details"]


def test_the_documented_limits_hold_for_each_sub_account(start: Callable[..., Asker], clock: Clock) -> None:
    source = start(accounts=("15300002", "15300003"), limits=Limits())
    statuses = []
    for _ in range(4):
        statuses += [metadata(source, DAY[0]).status_code for _ in range(4)]
        clock.advance(60)
    assert statuses == [*(3 * [200] + [429]), *(3 * [200] + [429]), *(3 * [200] + [429]), *(4 * [429])]
    refused = metadata(source, DAY[0])
    assert int(refused.headers["retry-after"]) == 900 - 240
    assert metadata(source, DAY[0], account="15300003").status_code == 200
    clock.advance(660)
    assert metadata(source, DAY[0]).status_code == 200
    segment = next(
        recording["segment"]
        for recording in source.sandbox.truth("2026-03-09", account="15300002")
        if recording["segment"]
    )
    url = below(source, f"recordings/dialogs/{segment['dialog_id']}/segments/{segment['segment_id']}")
    headers = bearer(source)
    assert [source.http.get(url, headers=headers).status_code for _ in range(121)] == 120 * [200] + [429]


def test_without_the_right_a_good_log_in_is_answered_403_and_a_bad_one_401_in_plain_text(
    start: Callable[..., Asker],
) -> None:
    assert metadata(start(wem=False, limits=FREE), DAY[0]).status_code == 403
    source = start(limits=FREE)
    refused = metadata(source, DAY[0], headers={"Authorization": "Bearer nonsense"})
    assert (refused.status_code, refused.text) == (401, "Jwt verification fails")
    headers = bearer(source)
    source.sandbox.expire_tokens()
    assert metadata(source, DAY[0], headers=headers).text == "Jwt is expired"
    assert metadata(source, DAY[0], account="15300009").status_code == 403


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_segment_gives_the_bytes_of_its_legs_stereo_recording_to_a_bearer_only(
    start: Callable[..., Asker], method: str
) -> None:
    source = start(limits=FREE)
    recording = next(item for item in source.sandbox.truth("2026-03-09") if item["segment"])
    url = below(
        source, f"recordings/dialogs/{recording['segment']['dialog_id']}/segments/{recording['segment']['segment_id']}"
    )
    answer = source.http.request(method, url, headers={**bearer(source), "User-Agent": "tests/1"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/wav")
    assert answer.content == source.media(recording["file"]).content
    counters = source.sandbox.counters()
    assert counters["media_by_path"][recording["file"]] == 2  # however it is asked for
    assert (counters["requests"]["download"], counters["requests"]["media"]) == (1, 1)
    token = {"X-Auth-Token": source.sandbox.config.credentials.api_token}
    assert source.http.request(method, url, headers=token).status_code == 401
    assert source.http.request(method, f"{url}x", headers=bearer(source)).status_code == 404


def test_a_flag_is_false_at_first_and_true_later_where_links_are_late(start: Callable[..., Asker]) -> None:
    source = start(limits=FREE, faults=Faults(late_links=Where(share=1.0, first=1)))
    first, second = (
        {row["segmentId"]: row["hasRecording"] for row in metadata(source, DAY[6]).json()} for _ in range(2)
    )
    assert True not in first.values()
    assert True in second.values()


def test_faults_of_a_window_are_chosen_by_its_start(start: Callable[..., Asker]) -> None:
    source = start(
        limits=FREE, faults=Faults(report_json_error_200=Where(paths=("interaction_metadata/2026-03-09T03:00:00",)))
    )
    assert isinstance(metadata(source, DAY[0]).json(), list)
    assert isinstance(metadata(source, DAY[1]).json(), dict)
