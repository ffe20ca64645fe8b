"""One session as one self-contained HTML page: recording, observations, who signed and approved (F068, F072).

Pure: facts in, text out. No script, nothing fetched; every text from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape

from appliance.archive.observations import NOTICE, Subject, end_90k
from appliance.archive.page_style import STYLE
from appliance.archive.timeline import Span, mark, timeline
from appliance.card import card_lines
from appliance.evidence.completeness import Completeness, Kind, Line
from appliance.policy import Level
from appliance.protocol import ObservationReport
from appliance.timecode import clock_text, duration_text, seconds, span_text

# Units stand in names (yaw_deg); a person reads them behind the value
UNITS = {"deg": "°", "s": " s", "ms": " ms", "hz": " Hz", "px": " px", "m": " m", "90k": " / 90000 s"}


@dataclass(frozen=True)
class Signature:
    """One signature that was verified: what it covers, who made it, the hash that it binds."""

    what: str
    who: str
    sha256: str


@dataclass(frozen=True)
class ReportFacts:
    """Everything on the page. Times of the session in 90 kHz, wall times as ISO 8601 text, sizes in bytes."""

    subject: Subject
    institution: str
    room: str
    desk: str
    started: str
    ended: str
    duration_90k: int
    retain_until: str
    recorded: tuple[Span, ...]
    completeness: Completeness
    lost: int
    notes: tuple[str, ...]
    cut: int
    damaged: int
    rooted: bool
    segments: int
    size_bytes: int
    reports: tuple[ObservationReport, ...]
    log_whole: bool
    signatures: tuple[Signature, ...]
    approved_by: str
    approved_at: str
    verified_at: str


def state_words(completeness: Completeness) -> str:
    """complete, or how many gaps, losses and other things there are."""
    if completeness.complete:
        return "complete"
    kinds = [line.kind for line in completeness.lines]
    gaps, lost = kinds.count(Kind.GAP), kinds.count(Kind.LOST)
    counts = ((gaps, "gap"), (lost, "loss"), (len(kinds) - gaps - lost, "other finding"))
    return ", ".join(
        f"{count} {name}{'' if count == 1 else 'es' if name == 'loss' else 's'}"
        for count, name in counts
        if count
    )


def render_report(facts: ReportFacts) -> str:
    """The whole page."""
    subject = facts.subject
    return "".join(
        (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            '<meta name="referrer" content="no-referrer">'
            f"<title>{escape(subject.exam)} · {escape(subject.candidate_code)} · Invigil report</title>"
            f"<style>{STYLE}</style></head><body><main>",
            f"<header><h1>Exam session report</h1><p>{escape(subject.exam)}, candidate "
            f"{escape(subject.candidate_code)}, room {escape(facts.room)}, desk {escape(facts.desk)}</p></header>",
            _completeness(facts),
            f'<p class="notice">{NOTICE}</p>',
            "<h2>Session</h2>",
            _session(facts),
            "<h2>Timeline</h2>",
            _picture(facts),
            "<h2>Observations</h2>",
            _observations(facts.reports, facts.log_whole),
            "<h2>Signatures verified</h2>",
            _signatures(facts.signatures),
            f"<footer>Verified and written by invigil archive report on {escape(_wall(facts.verified_at))}. "
            "This page holds the log of a recording: keep it no longer and no more openly than the recording "
            "itself.</footer>",
            "</main></body></html>\n",
        )
    )


def _completeness(facts: ReportFacts) -> str:
    length = duration_text(seconds(facts.duration_90k))
    lines = facts.completeness.lines
    gaps = [line for line in lines if line.kind is Kind.GAP]
    whole = facts.completeness.complete and not facts.cut and not facts.damaged
    if whole:
        head = f"The recording is complete: {length} without a gap."
    else:
        count = "no gap" if not gaps else "one gap" if len(gaps) == 1 else f"{len(gaps)} gaps"
        head = f"The recording of {length} has {count}."
        if facts.lost:
            head = f"The recording of {length} has {count} and {facts.lost} records that the desk lost."
        elif not gaps and not facts.cut:
            head = f"The recording of {length} has no gap, but not all is as promised."
    # each lost record stands among the notes, with its file
    items = [_line(line) for line in lines if line.kind is not Kind.LOST]
    items.extend(escape(words) for words in facts.notes)
    listed = "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>" if items else ""
    kind = "state" if whole else "state partial"
    return f'<div class="{kind}"><p class="head">{head}</p><p>{_verified_words(facts)}</p>{listed}</div>'


def _verified_words(facts: ReportFacts) -> str:
    """What was held against manifest and witnessed root, and what could not be."""
    words = ""
    if facts.cut:
        count = "One file was" if facts.cut == 1 else f"{facts.cut} files were"
        words = f"{count} cut after the recording; what is left of it was verified. "
    if facts.damaged:
        count = "One file was" if facts.damaged == 1 else f"{facts.damaged} files were"
        words += (
            f"{count} damaged on the desk before the upload and released so by {escape(facts.approved_by)}; what opens "
            "of it is authentic, record by record. "
        )
    if not words:
        return "Every file, signature and hash was verified; nothing was altered after the session."
    if facts.rooted:
        return f"{words}Everything else was verified."
    return (
        f"{words}Everything else was verified; the root that the room witnessed cannot be computed without the "
        "missing records."
    )


def _line(line: Line) -> str:
    words = escape(line.cause)
    if line.kind is Kind.GAP:
        return f"<strong>Gap</strong> {_span_words(line)}: {words}"
    if line.kind is Kind.UNWITNESSED:
        return f"Recorded, but not witnessed by the room at that time: {_span_words(line)}: {words}"
    return f"Recorded, but not as promised: {_span_words(line)}: {words}"


def _span_words(line: Line) -> str:
    if line.start_90k == line.end_90k:
        return clock_text(line.start_90k)
    length = duration_text(seconds(line.end_90k - line.start_90k))
    return f"{span_text(line.start_90k, line.end_90k)} ({length})"


def _session(facts: ReportFacts) -> str:
    subject = facts.subject
    pairs = {
        "Institution": escape(facts.institution),
        "Exam": escape(subject.exam),
        "Room and desk": f"{escape(facts.room)}, {escape(facts.desk)}",
        "Candidate code": escape(subject.candidate_code),
        "Started": escape(_wall(facts.started)),
        "Ended": escape(_wall(facts.ended)),
        "Policy": f"{escape(subject.policy_id)}, version {subject.policy_version}",
        "Kept until": escape(facts.retain_until),
        "Approved by": f"{escape(facts.approved_by)}<small>{escape(_wall(facts.approved_at))}</small>",
        "Recording": f"{facts.segments} segments, {facts.size_bytes / 1e6:.1f} MB",
        "Session": f"<code>{escape(subject.sid)}</code>",
    }
    cells = (f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs.items())
    return f"<dl>{''.join(cells)}</dl>"


def _picture(facts: ReportFacts) -> str:
    picture = timeline(facts.duration_90k, facts.recorded, facts.completeness.lines, facts.reports)
    spans = {
        "recorded": "recorded",
        "unwitnessed": "recorded, not witnessed",
        "finding": "recorded, picture or clock not as promised",
        "gap": "gap",
    }
    key = "".join(
        f'<li><svg class="mark" viewBox="0 0 16 16" aria-hidden="true">'
        f'<rect class="{name}" x="1" y="4" width="14" height="8"/></svg>{words}</li>'
        for name, words in spans.items()
    )
    levels: tuple[Level | None, ...] = ("green", "yellow", "red", None)
    key += "".join(f"<li>{mark(level, False)}{_level_word(level, False)}</li>" for level in levels)
    key += f"<li>{mark(None, True)}{_level_word(None, True)}</li>"
    return f'<div class="scroll">{picture}</div><ul class="key">{key}</ul>'


def _observations(reports: Iterable[ObservationReport], log_whole: bool) -> str:
    rows = [_row(report) for report in reports]
    if not rows:
        return (
            f"<p>Nothing was noted in {'' if log_whole else 'what is left of '}the log of this session.</p>"
        )
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("Time", "What", "How long", "Level", "Rule", "Measured", "Uncertainty")
    )
    return (
        '<div class="scroll"><table><caption>Times from the start of the session</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="notice">{NOTICE}</p>'
    )


def _row(report: ObservationReport) -> str:
    name = "technical" if report.technical else report.level or "none"
    level = f'<span class="level {name}">{mark(report.level, report.technical)}'
    level += f"{_level_word(report.level, report.technical)}</span>"
    still_open = "<small>open when the log ended</small>" if report.end_90k is None else ""
    cells = (
        f'<td class="time">{span_text(report.start_90k, end_90k(report))}</td>',
        f"<td>{escape(report.words)}{still_open}</td>",
        f'<td class="long">{duration_text(report.duration_s)}</td>',
        f"<td>{level}</td>",
        f"<td>{escape(report.rule)}</td>",
        f"<td>{_measured(report.measured)}</td>",
        f"<td>{escape(report.uncertainty)}</td>",
    )
    return f"<tr>{''.join(cells)}</tr>{_card(report, len(cells))}"


def _card(report: ObservationReport, columns: int) -> str:
    lines = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>"
        for label, text in card_lines(report.card)
    )
    inside = f"<details><summary>Explanation</summary><dl>{lines}</dl></details>"
    return f'<tr class="card"><td colspan="{columns}">{inside}</td></tr>'


def _measured(measured: Mapping[str, float | int | str | None]) -> str:
    shown = []
    for name, value in measured.items():
        words, _, last = name.rpartition("_")
        unit = UNITS.get(last)
        label = words if unit and words else name
        text = "unknown" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        known = unit if unit and value is not None else ""
        shown.append(f"{escape(label.replace('_', ' '))} {escape(text)}{known}")
    return "<br>".join(shown)


def _level_word(level: str | None, technical: bool) -> str:
    return "technical" if technical else level or "no level"


def _signatures(signatures: Iterable[Signature]) -> str:
    rows = "".join(
        f"<tr><td>{escape(one.what)}</td><td>{escape(one.who)}</td><td><code>{escape(one.sha256)}</code></td></tr>"
        for one in signatures
    )
    return (
        '<div class="scroll"><table><thead><tr><th scope="col">What</th><th scope="col">Signed by</th>'
        f'<th scope="col">SHA-256</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _wall(text: str) -> str:
    """2026-11-22T09:00:00.000Z as a person reads it."""
    return text[:19].replace("T", " ") + " UTC" if len(text) >= 20 and text.endswith("Z") else text
