"""What is written about a date: its pulls, manifests, witnesses and ledger parts, each held against the others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import date, datetime

import pyarrow as pa

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyMissing
from pipelines.archive.keys import catalog_key, manifest_key, manifest_prefix
from pipelines.archive.proof.attestation import Seen, read_witnesses
from pipelines.archive.proof.chain import Chain
from pipelines.archive.proof.manifest import ManifestHead
from pipelines.ledger.files import LedgerDamaged
from pipelines.ledger.merged import Record, held_against, is_merged
from pipelines.ledger.parts import LedgerParts, damage, lines
from pipelines.ledger.schema import STATE_SCHEMA, PullRecord, decode, states_from
from pipelines.ledger.store import current_lines
from pipelines.ringcx.reports.columns import ReportName
from pipelines.steps.parallel import map_in_order
from pipelines.steps.pull.coverage import gaps
from pipelines.steps.seal.manifest import MANIFESTS, rows_pulled
from pipelines.steps.verify.comparison import COMPARED, Comparison
from pipelines.steps.verify.report import Tell
from pipelines.wording import number

_AT_ONCE = 2000


def check_pulls(
    day: date,
    pulls: Mapping[ReportName, Sequence[PullRecord]],
    accounts: Sequence[str],
    reports: Sequence[ReportName],
    *,
    bounds: tuple[datetime, datetime],
    tell: Tell,
) -> None:
    """Whether each of the `reports` was pulled for each account and covers the whole day, whose UTC bounds are given,
    unless another source does.

    Without `accounts`, those that any pull of the date names.
    """
    known = accounts or sorted({pull.account_id for of_report in pulls.values() for pull in of_report})
    if not any(pulls.values()):
        tell("never_pulled", day.isoformat(), f"{day} was never pulled, so it is unknown what it should hold; run it")
        return
    for gap in gaps(pulls, known, bounds, reports):
        subject = f"{gap.report} of account {gap.account_id}"
        if gap.to is None:
            tell("never_pulled", subject, f"{subject} was never pulled for {day}; run the date")
        else:
            tell(
                "partly_pulled",
                subject,
                f"{subject} was pulled for {day} only up to {gap.to:%Y-%m-%d %H:%M} UTC; run the date again "
                "when it is over",
            )


def check_manifests(bucket: Bucket, day: date, chain: Chain, tell: Tell) -> None:
    """The chain of the date's manifests, and what witnesses saw of them."""
    for problem in chain.problems:
        tell(problem.kind, problem.subject, problem.sentence)
    known, damaged = read_witnesses(bucket, MANIFESTS, day)
    _damaged(damaged, tell)
    for name, seen in known.items():
        key = f"{bucket.prefix}{name}"
        number = next((one for one in chain.numbers if manifest_key(bucket.prefix, day, one) == key), None)
        if number is None:
            tell("manifest_removed", key, f"{key} was sealed and is gone; restore it from an earlier version")
        elif number in chain.heads and {chain.heads[number].sha256} != {one.sha256 for one in seen}:
            tell(
                "manifest_altered", key, f"{key} is not what its witness saw: it was altered; restore its first version"
            )
    for head in chain.heads.values():
        if head.key.removeprefix(bucket.prefix) not in known:
            tell(
                "unwitnessed",
                head.key,
                f"No witness saw {head.key}: its witness was removed, it was put there by hand, or the run that sealed "
                "it was killed; run the date again and look at who wrote it",
            )


def check_catalog(bucket: Bucket, day: date, latest: ManifestHead | None, tell: Tell) -> None:
    """The date's part of the catalog must be the one whose hash is sealed. A manifest from before the hash was sealed
    only says that there is one.
    """
    if latest is None:
        return
    key, sealed = catalog_key(bucket.prefix, day), latest.document.get("catalog_sha256")
    try:
        stale = sealed is not None and bucket.hash_object(key).sha256 != sealed
        what = "is not the catalog that was sealed: it was altered or replaced" if stale else ""
        if sealed is None and bucket.head(key) is None:
            what = "is gone"
    except KeyMissing:
        what = "is gone"
    if what:
        tell("catalog_stale", key, f"{key} {what}; run {day} again, which rebuilds it from the ledger")


def check_next_day(day: date, chain: Chain, bucket: Bucket, following: Chain, tell: Tell) -> None:
    """What the next day's manifests name of `day`'s must be there, as it was."""
    named_before = False
    for _, head in sorted(following.heads.items()):
        named = head.document["previous_day"]
        if named is None:
            if named_before:
                tell("manifest_altered", head.key, f"{head.key} names no manifest of {day} although one before it does")
            continue
        named_before = True
        number, sha256 = _named(named, day)
        key = f"{manifest_prefix(bucket.prefix, day)}manifest-{number}.json"
        if number is None:
            tell("manifest_altered", head.key, f"{head.key} names no manifest of the day before in its proper form")
        elif number not in chain.numbers:
            tell("manifest_removed", key, f"{key}, upon which {head.key} was sealed, is gone; restore it")
        elif number in chain.heads and chain.heads[number].sha256 != sha256:
            tell(
                "manifest_altered",
                key,
                f"{key} is not the one upon which {head.key} was sealed: it was altered; restore its first version",
            )


def read_ledger(
    parts: LedgerParts,
    bucket: Bucket,
    day: date,
    threads: int,
    *,
    tell: Tell,
    sealed: bool,
) -> pa.Table:
    """Read every part of the date and compare it with what witnesses saw. Return the current states (STATE_SCHEMA).

    A part that is gone is no doubt where a merged part that a witness saw has taken its place; a merged part is held
    against what it replaces while that is there. `sealed`: whether the date was ever sealed; before that no part has a
    witness.
    """
    states = STATE_SCHEMA.empty_table()
    lately: list[pa.Table] = []  # reduced whenever they outnumber the states: a date may have hundreds of parts
    for kind, names in parts.names(day).items():
        known, damaged = read_witnesses(bucket, kind, day)
        _damaged(damaged, tell)
        there: dict[str, Seen] = {}
        merged: dict[str, Record] = {}
        for name, data in map_in_order(parts.read_if_there, names, threads=threads):
            if data is None:  # removed since it was listed
                continue
            there[name] = Seen(name, len(data), hashlib.sha256(data).hexdigest())
            if name in known and known[name] != {there[name]}:
                tell(
                    "ledger_part_altered",
                    name,
                    f"The ledger part {name} is not what its witness saw when {day} was sealed; restore its "
                    "first version",
                )
            try:
                if is_merged(name):
                    merged[name] = Record.of(data)
                if kind == "recording_states":
                    lately.append(_states(name, data))
                    if sum(table.num_rows for table in lately) > states.num_rows:
                        states, lately = current_lines(pa.concat_tables([states, *lately])), []
            except (LedgerDamaged, ValueError, pa.ArrowException, OSError) as error:
                sentence = str(error) if isinstance(error, LedgerDamaged) else f"{name} is no whole merged part"
                tell("ledger_part_altered", name, f"{sentence[:1].upper()}{sentence[1:]}")
        proven = _check_merged(parts, merged, known, tell)
        # Witnesses were read after the listing: what came between the two is there now.
        gone = sorted(set(known) - set(there))
        came = set(parts.names(day)[kind]) if gone else set()
        for name in gone:
            replaced = any(
                known.get(by) == frozenset({there[by]}) and _names_as_seen(record, name, known)
                for by, record in merged.items()
            )
            if not replaced and name not in came:
                tell(
                    "ledger_part_removed",
                    name,
                    f"The ledger part {name} was there when {day} was sealed and is gone; restore it from a backup or "
                    "an earlier version of the object",
                )
        fresh = [name for name in there if name not in known and name not in proven]
        if fresh and sealed:
            tell(
                "unwitnessed",
                fresh[0],
                f"{number(len(fresh), 'ledger part')} of {day} ({kind}, the first is {fresh[0]}) came after it was "
                "last sealed, or its witness was removed; run the date again",
            )
    return current_lines(pa.concat_tables([states, *lately]))


def _states(name: str, data: bytes) -> pa.Table:
    """The lines of a part of states, each of which can be one.

    Raises:
        LedgerDamaged: it is no such part.
    """
    with damage(name):
        table = lines(name, decode(data))
        for start in range(0, table.num_rows, _AT_ONCE):
            states_from(table.slice(start, _AT_ONCE))
        return table


def _names_as_seen(record: Record, name: str, known: Mapping[str, frozenset[Seen]]) -> bool:
    """Whether the record names the part with the SHA-256 that every witness of it saw."""
    named = {one.sha256 for one in (*record.parts, *record.between) if one.name == name}
    return bool(named) and named == {one.sha256 for one in known.get(name, ())}


def _check_merged(
    parts: LedgerParts, merged: Mapping[str, Record], known: Mapping[str, frozenset[Seen]], tell: Tell
) -> set[str]:
    """Hold each merged part against the witnesses of what it replaces, and against that itself where it is there.

    Returns: those that are proven by it alone: version 0.1.0 was killed before it wrote the witness.
    """
    proven = set()
    for name, record in merged.items():
        others = (
            sorted(one.name for one in (*record.parts, *record.between) if not _names_as_seen(record, one.name, known))
            if known
            else []
        )
        strange = [one for one in others if one in known]
        unseen = [one for one in others if one not in known]
        if strange:
            tell(
                "ledger_part_altered",
                name,
                f"The merged ledger part {name} says of {strange[0]} another SHA-256 than its witness saw: one of the "
                "two was made by hand; restore both from an earlier version",
            )
        if unseen:
            tell(
                "unwitnessed",
                name,
                f"The merged ledger part {name} replaces {unseen[0]}, which no witness saw: its witness was removed, "
                "or the merged part was made by hand; look at who wrote it",
            )
        try:
            wrong, all_there = held_against(parts.read(name), record, parts.read_if_there)
        except (LedgerDamaged, pa.ArrowException, OSError):
            continue  # what is damaged is told of the part itself
        if wrong:
            tell(
                "ledger_part_altered",
                name,
                f"The merged ledger part {name} does not hold the lines of {wrong}, which it says to replace; "
                "move it out of the ledger",
            )
        elif all_there and not others:
            proven.add(name)
    return proven


def compare(
    day: date, known: Comparison, latest: ManifestHead, pulls: Mapping[ReportName, Sequence[PullRecord]], tell: Tell
) -> None:
    """The latest manifest against its own totals and against the ledger, recording by recording."""
    document = latest.document
    sealed_at = _moment(document.get("sealed_at"))
    totals = document["totals"] if isinstance(document["totals"], dict) else {}
    wrong = sorted(name for name, count in known.totals().items() if totals.get(name) != count)
    if wrong:
        names = ", ".join(wrong)
        tell("totals_wrong", latest.key, f"The totals of {latest.key} are not the sums of its entries ({names})")
    stale = 0
    for recording_id, sealed, held in known.differences():
        written_at = held.written_at if held else known.renamed.get(recording_id)
        if sealed_at is not None and written_at is not None and written_at > sealed_at:
            stale += 1
            continue
        in_manifest = f"{recording_id} of {day} is {sealed.status} in {latest.key}" if sealed else ""
        if sealed is None and held is not None:
            tell(
                "manifest_lacks",
                recording_id,
                f"{recording_id} of {day} is {held.status} in the ledger and not in {latest.key}: its entry was "
                "removed, or a later manifest was",
            )
        elif held is None:
            tell(
                "ledger_lacks",
                recording_id,
                f"{in_manifest} and not in the ledger: a ledger part was removed, or the entry was made by hand",
            )
        elif sealed is not None:
            fields = [name for name in COMPARED if getattr(sealed, name) != getattr(held, name)] or ["other fields"]
            tell(
                "ledger_differs",
                recording_id,
                f"{in_manifest} and {held.status} in the ledger, and they differ in {', '.join(fields)}: a manifest or "
                "a ledger part was altered or removed",
            )
    if stale:
        tell(
            "stale",
            latest.key,
            f"{latest.key} is out of date: {number(stale, 'recording')} of {day} changed after it was sealed; "
            "run the date again",
        )
    sealed_rows = {name: count for name, count in totals.items() if name.startswith("rows_")}
    if sealed_rows != rows_pulled(pulls):
        tell(
            "stale",
            f"{latest.key} rows",
            f"{latest.key} counts other report rows than the newest pulls of {day} in the ledger; run the date again, "
            "or find out which pull was removed",
        )


def _damaged(sentences: Sequence[str], tell: Tell) -> None:
    for sentence in sentences:
        tell("witness_altered", sentence.partition(" ")[0], sentence)


def _named(named: object, day: date) -> tuple[int | None, str]:
    if isinstance(named, dict) and named.get("date") == day.isoformat():
        number, sha256 = named.get("number"), named.get("sha256")
        if isinstance(number, int) and number > 0 and isinstance(sha256, str):
            return number, sha256
    return None, ""


def _moment(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else None
