"""What the archive's commands do and say. Loaded once one has been chosen, by `open` while the key is being opened.

Results go to stdout, progress to stderr. Named errors leave through the main command line, which prints them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import typer

from appliance.archive.observations import NOTICE, events_document
from appliance.archive.one_pass import write_whole_video
from appliance.archive.opening import (
    LoneKeys,
    OpenedVideo,
    SessionKeys,
    read_log,
    write_lone_segment,
    write_video,
)
from appliance.archive.output import new_file
from appliance.archive.rewrapped import rewrap_words
from appliance.archive.session import LOG_TRACK, LocalSession
from appliance.archive.session_records import require_authentic_cuts, track_segments
from appliance.archive.settings import find_config
from appliance.archive.trust import Trust
from appliance.archive.verify import (
    bytes_to_read,
    check_files,
    cut_words,
    cuts,
    damaged,
    damaged_words,
    require_unaltered,
    require_whole,
)
from appliance.clock import SystemClock
from appliance.command_line import install_hint
from appliance.config import ArchiveConfig, load_config
from appliance.errors import ApplianceError, BadInput, StoreFailed
from appliance.evf.errors import EvfError
from appliance.evidence.completeness import VIDEO_TRACK
from appliance.timecode import clock_text, span_text

if TYPE_CHECKING:
    from appliance.archive.bucket import Bucket
    from appliance.evf.recipients import RepresentativeKey


def list_sessions(config: Path | None, exam: str | None) -> None:
    """One line a session of the storage."""
    sessions = _bucket(_settings(config)).sessions(exam)
    if not sessions:
        typer.echo("no sessions in the storage")
    for session in sessions:
        typer.echo(
            f"{session.state:<11}  {session.exam}  {session.sid}  {len(session.objects):>4} files  "
            f"{session.size_bytes / 1e6:>8.1f} MB  {session.changed}"
        )


def pull_session(sid: str, out: Path, config: Path | None, exam: str | None) -> None:
    """Bring one session from the storage and say what was there."""
    settings = _settings(config)
    trust = Trust.load(settings)
    bucket = _bucket(settings)
    from appliance.archive.pulling import pull

    stored = bucket.find(sid, exam)
    with _progress("pulling") as (on_total, on_bytes):
        pulled = pull(bucket, trust, stored, out, on_total, on_bytes)
    count = len(pulled.damaged)
    but = (
        f"; but for {count} damaged on the desk, released so: invigil archive verify names them"
        if count
        else ""
    )
    typer.echo(
        f"{pulled.folder}: {pulled.fetched} files fetched, {pulled.kept} were there, all as the manifest says{but}"
    )
    for name in pulled.unnamed:
        typer.echo(f"left in the storage, not named in the manifest: {name}")
    for name in pulled.left_over:
        typer.echo(f"still in the storage though it was replaced, run rewrap again: {name}")


def verify(folder: Path, config: Path | None) -> None:
    """One line a file; EvidenceBroken for what is not as the manifest says."""
    from appliance.archive.report import state_words

    session = _held(loaded(folder, config)[0], say=True)
    manifest = session.manifest
    _say_lines(session)
    typer.echo(
        f"session {manifest.sid} of exam {manifest.exam}, candidate {manifest.candidate_code}: nothing was altered; "
        f"recording of {clock_text(session.end_90k)}, {state_words(session.completeness)}"
    )


def open_session(
    session: LocalSession,
    trust: Trust,
    representative: RepresentativeKey,
    out: Path,
    events: Path | None,
) -> None:
    """Write the film and the log of a session whose signatures hold; EvidenceBroken when its files do not."""
    with new_file(out) as stream:
        whole = _open_whole(session, representative, trust, stream, out)
        if whole is None:
            session = _held(session)
            keys = SessionKeys(session, representative, trust)
            require_authentic_cuts(session, keys)
            with _progress("opening") as (on_total, on_bytes):
                on_total(sum(entry.size_bytes for entry in track_segments(session, VIDEO_TRACK)))
                opened = write_video(session, keys, stream, on_bytes)
        else:
            opened, keys = whole
    typer.echo(f"{out}: {opened.fragments} fragments up to {clock_text(opened.end_90k)}")
    _say_losses(session)
    _say_rewrap(session)
    _say_notes(opened.notes)
    _say_lines(session)
    if events is not None:
        log = read_log(session, keys)
        _say_notes(log.notes)
        document = events_document(session.manifest, session.completeness, log.reports)
        with new_file(events) as stream:
            stream.write(json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n")
        typer.echo(f"{events}: {len(document['observations'])} observations. {NOTICE}")


def _open_whole(
    session: LocalSession, representative: RepresentativeKey, trust: Trust, stream: BinaryIO, out: Path
) -> tuple[OpenedVideo, SessionKeys] | None:
    """Verified and opened at once; None, and nothing in `stream`, when anything about the session is not whole."""
    try:
        keys = SessionKeys(session, representative, trust)
        with _progress("opening") as (on_total, on_bytes):
            on_total(sum(entry.size_bytes for entry in track_segments(session, VIDEO_TRACK)))
            return write_whole_video(session, keys, stream, out, on_bytes), keys
    except StoreFailed:
        raise  # of the film's own disk
    except (ApplianceError, EvfError, OSError):
        # Verifying by itself names the file and the span, or finds a cut that leaves something to open.
        stream.truncate(0)
        return None


def open_segment(
    segment: Path,
    open_key: Callable[[], RepresentativeKey],
    out: Path,
    events: Path | None,
    config: Path | None,
) -> None:
    """One segment alone. Settings are looked at before the key is asked for."""
    if events is not None:
        raise BadInput("one segment alone has no log", "open the session's folder for --events")
    trust = Trust.load(_settings(config))
    representative = open_key()
    with _progress("opening") as (on_total, on_bytes), new_file(out) as stream:
        on_total(segment.stat().st_size)
        opened = write_lone_segment(segment, LoneKeys(segment, representative, trust), stream, on_bytes)
    typer.echo(f"{out}: {opened.fragments} fragments up to {clock_text(opened.end_90k)}")
    _say_notes(opened.notes)
    typer.echo(
        "note: opened alone, not held against its session's manifest: it proves nothing about completeness"
    )


def open_salvaged(
    folder: Path, open_key: Callable[[], RepresentativeKey], out: Path, config: Path | None
) -> None:
    """What a salvaged folder still holds. Folder and settings are looked at before the key is asked for."""
    from appliance.archive.salvaged import salvaged_segments, write_salvaged_video

    segments = salvaged_segments(folder)
    trust = Trust.load(_settings(config))
    representative = open_key()
    with new_file(out) as stream:
        opened = write_salvaged_video(segments, lambda path: LoneKeys(path, representative, trust), stream)
    typer.echo(f"{out}: {opened.fragments} fragments up to {clock_text(opened.end_90k)}")
    _say_notes(opened.notes)
    typer.echo("note: opened without its manifest: every record is authentic, completeness is not proven")


def report(folder: Path, config: Path | None, representative: RepresentativeKey, out: Path) -> None:
    """Verify a session, open its log and write the page."""
    from appliance.archive.facts import report_facts
    from appliance.archive.report import render_report

    session, trust = loaded(folder, config)
    session = _held(session)
    keys = SessionKeys(session, representative, trust)
    require_authentic_cuts(session, keys)
    log = read_log(session, keys)
    page = render_report(report_facts(session, trust, log, SystemClock().wall()))
    with new_file(out) as stream:
        stream.write(page.encode())
    typer.echo(
        f"{out}: {len(log.reports)} observations in {len(track_segments(session, LOG_TRACK))} log segments"
    )
    _say_losses(session)
    _say_rewrap(session)
    _say_notes(log.notes)


def rewrap(
    set_file: Path,
    folder: Path | None,
    exam: str | None,
    open_keys: Callable[[], tuple[RepresentativeKey, RepresentativeKey | None]],
    config: Path | None,
) -> None:
    """Wrap the keys of a folder's sessions anew, or of all in the storage; `open_keys`: the opener's, the signer's."""
    settings = _settings(config)
    from appliance.archive.rewrap_all import bucket_jobs, folder_jobs, rewrap_all
    from appliance.archive.rewrapping import load_task

    jobs = folder_jobs(folder) if folder is not None else bucket_jobs(_bucket(settings), exam)
    rewrap_all(jobs, load_task(set_file, settings, *open_keys()), typer.echo)


def _bucket(settings: ArchiveConfig) -> Bucket:
    try:
        from appliance.archive.bucket import Bucket  # loading boto3 takes half a second
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("boto3", "botocore"):
            raise
        raise BadInput("this command needs the extra 'archive'", install_hint("archive")) from error
    return Bucket(settings.storage, settings.institution)


def _settings(config: Path | None) -> ArchiveConfig:
    return load_config(find_config(config, Path.cwd(), Path.home()), ArchiveConfig)


def _say_lines(session: LocalSession) -> None:
    for line in session.completeness.lines:
        typer.echo(f"{line.kind.value}: {span_text(line.start_90k, line.end_90k)} {line.cause}")


def _say_rewrap(session: LocalSession) -> None:
    if session.rewrapped.newest is not None:
        typer.echo(f"note: {rewrap_words(session.rewrapped.newest)}")


def _say_notes(notes: Iterable[str]) -> None:
    for note in notes:
        typer.echo(f"note: {note}")


def _say_losses(session: LocalSession) -> None:
    for words in cut_words(session):
        typer.echo(f"cut: {words}")
    for words in damaged_words(session):
        typer.echo(f"lost: {words}")
    if not session.rooted:
        typer.echo(
            "note: all that was opened is authentic; the root that the room witnessed cannot be computed without the "
            "missing records"
        )


def loaded(folder: Path, config: Path | None) -> tuple[LocalSession, Trust]:
    """A session whose signatures hold, and what they are held against; BadInput, EvidenceBroken."""
    if not folder.is_dir():
        raise BadInput(f"no folder {folder}", "name the folder that invigil archive pull wrote")
    trust = Trust.load(_settings(config))
    return LocalSession.load(folder, trust), trust


def _held(session: LocalSession, *, say: bool = False) -> LocalSession:
    """The session with every file held against its manifest, its cuts and what was damaged."""
    with _progress("verifying") as (on_total, on_bytes):
        on_total(bytes_to_read(session))
        checks = check_files(session, on_bytes)
    if say:
        for check in checks:
            typer.echo(check.line())
        require_whole(checks)
    require_unaltered(checks)
    return replace(session, cuts=cuts(checks), damaged=damaged(session, checks))


@contextmanager
def _progress(words: str) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """(on_total, on_bytes) of a bar on stderr; silent where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield (lambda _total: None, lambda _count: None)
        return
    # loaded only where somebody looks
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(words, total=None)
        yield (
            lambda total: bar.update(task, total=max(total, 1)),
            lambda count: bar.update(task, advance=count),
        )
