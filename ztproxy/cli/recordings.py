"""`ztproxy recordings`: what was done, by whom, why it was allowed, and the proof that nobody changed it.

Reads files only, so it works on a running node, on a stopped one and on a copy far away.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from ztproxy.cli.admin import socket_of
from ztproxy.cli.options import DEFAULT_CONFIG, ConfigOption
from ztproxy.cli.tables import JsonOption, moment, plain, show_fields, show_json, show_table
from ztproxy.config.problems import ConfigProblems
from ztproxy.model.codes import CODES
from ztproxy.model.record import (
    PREFLIGHT,
    ConfigurationRecord,
    DecisionRecord,
    FloodRecord,
    OutcomeRecord,
    SessionRecord,
    SignalRecord,
    StandingRecord,
)
from ztproxy.recording import note
from ztproxy.recording.note import NoteError
from ztproxy.recording.read import Event, Exchange, NoSuchSession, Reader, as_json
from ztproxy.recording.summary import Summary
from ztproxy.recording.verify import Verdict, verify
from ztproxy.store.interface import StoreUnavailable

app = typer.Typer(
    help="Search, replay and verify the sealed log.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
FOLLOW_SECONDS = 0.5
SHORT = 8
REFERENCE = re.compile(f"[0-9a-f]{{{SHORT},32}}")

DirOption = Annotated[
    Path | None,
    typer.Option("--dir", "-d", help="A recordings directory or a copy of one, instead of the node's."),
]
COLUMNS = ("At", "Device", "Request", "Decision", "Answer")


@app.command("list")
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    directory: DirOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the last active first.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List recorded sessions: live, ended, and those that a crash cut off.

    Workloads and strangers have no session; what they did is listed under their name.
    """
    with _reader(config, directory) as reader:
        found = reader.sessions(limit)
    if as_json:
        show_json([msgspec.to_builtins(summary) for summary in found])
        return
    rows = ((one.id, _who(one), moment(one.last), _counts(one), _state(one)) for one in found)
    show_table(("ID", "Who", "Last", "Requests", "State"), rows, "nothing is recorded yet")


@app.command()
def show(
    session: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="Session id, or the reference of a refusal; or a unique beginning of one."
        ),
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    directory: DirOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens next.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what was done in one session, request by request, and why it was allowed or refused.

    With the reference that a refusal names: everything that is known about this one request.
    """
    with _reader(config, directory) as reader:
        if REFERENCE.fullmatch(session):
            _show_request(reader.request(session), as_json)
            return
        summary = reader.find(session)
        if follow:
            _follow(reader, summary.id, as_json)
        elif as_json:
            _show_json(summary, reader.events(summary.id))
        else:
            _show(summary, reader.events(summary.id))


@app.command("verify")
def verify_(
    where: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A recordings directory or a copy.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    directory: DirOption = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="A copy of log.pub kept elsewhere; default: the one there.")
    ] = None,
    session: Annotated[str, typer.Option("--session", help="Also count the records of this session.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Prove that the log is what was sealed, or name the first record that is not. Exits 0 or 1."""
    with _told():
        public = note.parse_key(key.read_text()) if key else None
        verdict = verify(where or _directory(config, directory), public_key=public, session=session or None)
    if as_json:
        show_json(msgspec.to_builtins(verdict))
    else:
        typer.echo("\n".join(map(plain, _sentences(verdict))))
    raise typer.Exit(0 if verdict.ok else 1)


# where


def _directory(config: Path, directory: Path | None) -> Path:
    return directory or socket_of(config).parent.parent / "recordings"


@contextmanager
def _reader(config: Path, directory: Path | None) -> Iterator[Reader]:
    with _told():
        reader = Reader(_directory(config, directory))
        try:
            yield reader
        finally:
            reader.close()


@contextmanager
def _told() -> Iterator[None]:
    """Tell people what is wrong in a sentence."""
    try:
        yield
    except (ConfigProblems, NoSuchSession, StoreUnavailable) as error:
        message = str(error)
    except NoteError as error:
        message = f"--key: {error}"
    except FileNotFoundError as error:
        message = f"{error.filename} is not there; name the directory with --dir or the file with --config"
    except BrokenPipeError:
        raise  # whoever read has seen enough
    except (OSError, UnicodeDecodeError) as error:
        message = str(error)
    else:
        return
    typer.echo(f"ztproxy: {plain(message)}", err=True)
    raise typer.Exit(1)


# list


def _who(summary: Summary) -> str:
    name = summary.name or summary.principal
    return name if not summary.id.endswith(name) else ""


def _counts(summary: Summary) -> str:
    refused = f", {summary.refused} refused" if summary.refused else ""
    return f"{summary.permitted} permitted{refused}"


def _state(summary: Summary) -> str:
    if summary.ended_at:
        return summary.ended
    return f"{summary.open} unfinished" if summary.open > 0 else ""


# show


def _show(summary: Summary, events: list[Event]) -> None:
    show_fields(
        {
            "id": summary.id,
            "who": f"{summary.name} ({summary.principal})" if summary.name else summary.principal,
            "device": summary.device,
            "from": summary.ip,
            "first": moment(summary.first),
            "last": moment(summary.last),
            "ended": f"{moment(summary.ended_at)}, {summary.ended}" if summary.ended_at else "",
            "requests": _counts(summary),
            "bytes": f"{_size(summary.received)} received, {_size(summary.sent)} sent",
        }
    )
    show_table(COLUMNS, (_row(event, summary.device) for event in events), "no records")


def _show_request(exchange: Exchange, json: bool) -> None:
    if json:
        show_json(as_json(exchange))
        return
    decision, outcome = exchange.decision, exchange.outcome
    if decision is None:
        return
    show_fields(
        {
            "reference": decision.id,
            "at": moment(decision.at),
            "who": f"{decision.name} ({decision.principal})" if decision.name else decision.principal,
            "groups": ", ".join(decision.groups),
            "from": decision.ip,
            "session": decision.session,
            "device": decision.device,
            "proved by": _with_age(decision.device_proof, decision.device_proof_age),
            "posture": _with_age(decision.posture, decision.posture_age),
            "request": f"{_request(decision)} on {decision.host}",
            "decision": _reason(decision),
            "unmet": "; ".join(decision.near_misses),
            "errors": ", ".join(decision.errors),
            "policy set": decision.policy_set,
            "answer": _answer(outcome) or _refusal(decision),
            "records": ", ".join(map(str, exchange.n)),
        }
    )


def _show_json(summary: Summary, events: list[Event]) -> None:
    show_json({"session": msgspec.to_builtins(summary), "events": [as_json(event) for event in events]})


def _follow(reader: Reader, session: str, json: bool) -> None:
    try:
        for event in reader.follow(session):
            if event is None:
                time.sleep(FOLLOW_SECONDS)
            elif json:
                typer.echo(msgspec.json.encode(event))
            else:
                typer.echo("  ".join(plain(cell) for cell in _row(event) if cell))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _row(event: Event, known: str = "") -> tuple[str, ...]:
    """Return the cells of one event. `known`: the device that need not be named again."""
    if isinstance(event, SessionRecord):
        device = event.device if event.device != known else ""
        what = f"session {event.event}" if event.session else event.event  # of a device or a connector
        return _time(event.at), device, what, event.detail, ""
    if isinstance(event, FloodRecord):
        alike = f"{event.count} alike from {event.source or 'many sources'}"
        return _time(event.at), "", alike, f"refused: {event.code}", f"counted since {_time(event.first)}"
    if isinstance(event, ConfigurationRecord):
        after = event.detail or f"configuration {event.after[:16]}, policies {event.policy_set[:16]}"
        return _time(event.at), f"by {event.by}", f"{event.event} {event.outcome}", after, ""
    if isinstance(event, StandingRecord):
        until = f"until {moment(event.expires_at)}" if event.expires_at else ""
        what = f"{event.event} {event.target} {event.value}"
        return _time(event.at), f"by {event.by}", what, event.detail, until
    if isinstance(event, SignalRecord):
        who = " ".join(event.concerns)
        what = f"{event.outcome}: {', '.join(event.actions)}" if event.actions else event.outcome
        return (
            _time(event.at),
            f"by {event.source}",
            f"signal {event.event}",
            f"{who} {event.reason}".strip(),
            what,
        )
    if not isinstance(event, Exchange):
        return _time(event.at), "", "(records are missing)", event.reason, ""
    decision, outcome = event.decision, event.outcome
    if decision is None:
        return _time(outcome.at if outcome else 0), "", "(its beginning is not shown)", "", _answer(outcome)
    posture = _with_age(decision.posture, decision.posture_age)
    device = f"{decision.device if decision.device != known else ''} {posture}".strip()
    answer = _answer(outcome) if outcome else _refusal(decision) if event.finished else "unfinished"
    if not decision.allow:
        answer += f", see {decision.id[:SHORT]}"
    return _time(decision.at), device, _request(decision), _reason(decision), answer


def _time(ms: int) -> str:
    """Write a moment without its year and zone, which stand above."""
    return moment(ms)[5:19]


def _with_age(fact: str, ms: int) -> str:
    """Write what was known, and how old that was."""
    return f"{fact} ({ms / 1000:.0f} s old)" if fact and ms >= 0 else fact


def _request(decision: DecisionRecord) -> str:
    protocol = "" if decision.protocol == "http" else f" ({decision.protocol})"
    resource = decision.resource.partition("::")[2] or decision.host
    return f"{decision.action} {resource} {decision.path}{protocol}"


def _reason(decision: DecisionRecord) -> str:
    policies = ", ".join(decision.policies)
    if decision.decided == PREFLIGHT:
        return "answered by the gateway"
    if decision.allow:
        return f"permitted by {policies}" if policies else "permitted"
    words = decision.remedies + ((decision.detail,) if decision.detail else ())
    remedies = f" ({', '.join(words)})" if words else ""
    return f"refused: {decision.code}{remedies}" + (f" by {policies}" if policies else "")


def _answer(outcome: OutcomeRecord | None) -> str:
    if outcome is None:
        return ""
    status = str(outcome.status) if outcome.status else "no answer"
    end = "" if outcome.end == "complete" else f", {outcome.end}"
    end += f" ({outcome.detail})" if outcome.detail else ""
    return f"{status}, {_size(outcome.sent)}, {outcome.duration} ms{end}"


def _refusal(decision: DecisionRecord) -> str:
    if decision.decided == PREFLIGHT:
        return "204"
    known = CODES.get(decision.code)
    return str(known[0]) if known else ""


def _size(count: int) -> str:
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


# verify


def _sentences(verdict: Verdict) -> Iterator[Any]:
    if verdict.ok:
        sealed = f"are as they were sealed at {moment(verdict.sealed_at)}"
        yield f"ok: all {verdict.sealed} records of {verdict.origin} {sealed}"
    else:
        yield f"NOT OK: {verdict.count} records of {verdict.origin or 'this log'} verified before the problem"
    for problem in verdict.problems:
        yield f"  {problem}"
    if verdict.unsealed:
        yield f"{verdict.unsealed} records not yet sealed"
    if verdict.gaps:
        yield f'{verdict.gaps} records say that evidence before them is missing (kind "gap")'
    if verdict.floods:
        yield f'{verdict.floods} refusals of strangers were counted, not recorded one by one (kind "flood")'
    if proof := verdict.session:
        span = f", the first is record {proof.first}, the last {proof.last}" if proof.records else ""
        yield f"session {proof.id}: {proof.records} records{span}"
    if verdict.ok and verdict.key != "given":
        yield "verified with the key beside the log: with --key and a copy kept elsewhere it proves more"
