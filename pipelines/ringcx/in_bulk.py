"""The links and times of a whole day at once, as columns: what `links.parse_link` and `times` say of one at a time.

Only what is written as the source writes it is read here; all else is null and left to them. A day has a hundred
thousand of each, and a column of them takes a fiftieth of the time.
"""

from typing import Any, Final

import pyarrow as pa
import pyarrow.compute

from pipelines.ringcx.links import LONGEST_LINK

pc: Any = pyarrow.compute
Column = Any
"""A column of a table. The stubs do not know that the functions take one and give one."""
MOMENT: Final = pa.timestamp("us", tz="UTC")

_US: Final = r"^(?P<month>\d{2})/(?P<day>\d{2})/(?P<year>20\d{2}) (?P<clock>\d{2}:\d{2}:\d{2})$"
_ISO: Final = (
    r"^(?P<day>20\d{2}-\d{2}-\d{2})[T ](?P<clock>\d{2}:\d{2}:\d{2})(?:\.(?P<fraction>\d{1,6}))?(?:Z|\+00:?00)?$"
)
_EPOCH_MS: Final = r"^\d{12,14}$"
# As in links.py, where `file` may come once; RE2 has no look-ahead, so that is counted apart.
_LINK: Final = (
    r"^https://(?:[a-z0-9](?:-?[a-z0-9])*\.)+[a-z]+/[a-z0-9/]*\?"
    r"(?:[A-Za-z]+=[A-Za-z0-9_.-]*&)*file=[A-Za-z0-9_./-]*[A-Za-z0-9_.-](?:&[A-Za-z]+=[A-Za-z0-9_.-]*)*$"
)
_PART: Final = r"^[A-Za-z0-9_.~-]{1,512}$"


def link_files(links: Column) -> Column:
    """The path of the file that each link leads to; null where `parse_link` must read it."""
    once = pc.and_(pc.equal(pc.count_substring(links, "file="), 1), pc.less_equal(pc.utf8_length(links), LONGEST_LINK))
    # Split and not captured: a group in the pattern makes it five times as slow.
    plain = pc.if_else(pc.and_(once, pc.match_substring_regex(links, _LINK)), links, "file=")
    file = pc.list_element(pc.split_pattern(pc.list_element(pc.split_pattern(plain, "file="), 1), "&"), 0)
    return pc.if_else(pc.equal(file, ""), None, file)


def address_parts(ids: Column) -> Column:
    """Each id as it stands in an address; null where it must be encoded, or cannot stand in one."""
    plain = pc.and_(pc.match_substring_regex(ids, _PART), pc.invert(pc.is_in(ids, value_set=pa.array([".", ".."]))))
    return pc.if_else(plain, ids, None)


def report_times(texts: Column) -> Column:
    """Each text as a time, UTC; null where `parse_report_time` must read it."""
    us, iso = pc.extract_regex(texts, _US), pc.extract_regex(texts, _ISO)
    of_us = pc.binary_join_element_wise(*(_field(us, name) for name in ("year", "month", "day")), pa.scalar("-"))
    day = pc.coalesce(of_us, _field(iso, "day"))
    clock = pc.coalesce(_field(us, "clock"), _field(iso, "clock"))
    seconds = pc.binary_join_element_wise(day, clock, pa.scalar(" "))
    read = pc.strptime(seconds, format="%Y-%m-%d %H:%M:%S", unit="s", error_is_null=True)
    # 30 February is read as 2 March: what does not come out as it went in is no time.
    read = pc.if_else(pc.equal(pc.strftime(read, format="%Y-%m-%d %H:%M:%S"), seconds), read, None)
    fraction = pc.utf8_rpad(pc.coalesce(_field(iso, "fraction"), pa.scalar("")), 6, "0")
    micros = pc.add(read.cast(pa.timestamp("us")).cast(pa.int64()), fraction.cast(pa.int64()))
    return micros.cast(MOMENT)


def moments(texts: Column) -> Column:
    """Each text as a time of the current API, UTC; null where `parse_moment` must read it."""
    epoch = pc.if_else(pc.match_substring_regex(texts, _EPOCH_MS), texts, None).cast(pa.int64())
    return pc.coalesce(pc.multiply(epoch, 1000).cast(MOMENT), report_times(texts))


def _field(groups: Column, name: str) -> Column:
    """That group of each text; null where the pattern did not fit or the group is empty."""
    found = pc.struct_field(groups, name)
    return pc.if_else(pc.equal(found, ""), None, found)
