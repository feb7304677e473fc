"""The links that the settings allow to request, and which of the two APIs a recording belongs to."""

from dataclasses import dataclass

from pipelines.ledger.states import RecordingState
from pipelines.ringcx.errors import LinkRefused
from pipelines.ringcx.links import HostList, SegmentLinks, is_segment_link, parse_link
from pipelines.ringcx.reports.columns import INTERACTIONS

# The prefix of reasons that are about the link itself and not about the source's answer.
LINK_REFUSED = "link_refused:"


@dataclass(frozen=True, slots=True)
class AllowedLinks:
    """The links that may be requested: to the listed hosts, and to the current API's recordings if it is set up."""

    hosts: HostList
    segments: SegmentLinks | None = None

    def is_segment(self, state: RecordingState) -> bool:
        """Return whether the recording is requested from the current API, with its log-in."""
        ours = self.segments is not None and self.segments.owns(state.link, state.account_id)
        return ours and state.source == INTERACTIONS

    def refusal(self, state: RecordingState) -> str | None:
        """Return why the current settings do not allow the recording's link, or None if they do."""
        if self.is_segment(state):
            return None
        try:
            link = parse_link(state.link, state.account_id)
            if state.source == INTERACTIONS and is_segment_link(link.url):
                return "other_api"
            # Without the query, which differs from link to link: the list caches each address that it has parsed.
            self.hosts.require(link.url.partition("#")[0].partition("?")[0])
        except LinkRefused as refusal:
            return refusal.reason
        return None


def is_segment(source: str, link: str) -> bool:
    """Return whether a recording is identified by dialog and segment, as in the current API."""
    return source == INTERACTIONS and is_segment_link(link)
