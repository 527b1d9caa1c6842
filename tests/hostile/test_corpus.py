"""The corpus: every case ends as it says, whole, byte by byte and in pieces."""

import json
from dataclasses import replace

import pytest
from gateway_fakes import DATE, Stage, head_of
from hostile_cases import ANSWERS, CASES, GET, REQUESTS, Case, Outcome, code_of, play, segmentations, text

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: app.example\r\n\r\n"
#: Refused, and yet the connection goes on: it is known where the request ended.
GOES_ON = {"misdirected", "body-too-large"}


def test_the_corpus_is_one() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 500
    for case in CASES:
        assert case.source
        assert (
            bool(case.refused)
            + bool(case.cut)
            + bool(case.forwarded)
            + (case.passed is not None)
            + (case.broken is not None)
            == 1
        ), case.name


def identified(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[f"{case.file}: {case.name}" for case in cases])


@identified(REQUESTS)
async def test_requests(case: Case) -> None:
    outcomes = {}
    ways = segmentations(case.send, case.name)
    if case.refused and case.refused not in GOES_ON:
        ways["followed"] = [case.send + SMUGGLED]
    for way, pieces in ways.items():
        outcome, stage = await play(pieces)
        # How far a request had come when it broke depends on the pieces; everything else does not.
        outcomes[way] = replace(outcome, forwarded=b"", requests=()) if case.cut else outcome
        check(case, outcome, stage)
        await nothing_follows(case, stage)
    assert len(set(outcomes.values())) == 1, outcomes


def check(case: Case, outcome: Outcome, stage: Stage) -> None:
    if case.refused:
        assert outcome.forwarded == b""
        assert refusal(case, outcome) == case.refused
        told(stage, case.refused)
    elif case.cut:
        assert outcome.ends == ((code_of(case.cut), case.cut),)
        assert outcome.complete == 0
        assert all(upstream.ended == "abort" for upstream in stage.dialler.made)
        told(stage, case.cut)
    else:
        assert outcome.forwarded == b"".join(case.forwarded)
        assert len(outcome.requests) == len(case.forwarded)
        assert [end for end, _ in outcome.ends] == ["complete"] * len(case.forwarded)
        detail = case.then if code_of(case.then) != case.then else ""
        assert outcome.refusals == (((code_of(case.then), detail),) if case.then else ())
        assert outcome.pooled == case.pooled


def refusal(case: Case, outcome: Outcome) -> str:
    """Return the one word for what was refused; body limits come after the permit."""
    if outcome.refusals:
        ((code, detail),) = outcome.refusals
        return detail or code
    ((end, detail),) = outcome.ends
    return detail or end


def told(stage: Stage, word: str) -> None:
    first, fields, body = head_of(stage.client.written)
    problem = json.JSONDecoder().raw_decode(body.decode())[0]
    assert problem["code"] == code_of(word)
    assert first.split()[1] == str(problem["status"]).encode()
    assert fields[b"cache-control"] == [b"no-store"]
    assert b"server" not in fields
    if word not in GOES_ON:
        assert b"close" in fields[b"connection"]


async def nothing_follows(case: Case, stage: Stage) -> None:
    """After a refusal no byte is a request any more."""
    word = case.refused or case.cut or case.then
    if not word or word in GOES_ON or stage.client.ended:
        return
    asked, said = len(stage.door.requests), stage.client.written
    await stage.says(SMUGGLED)
    assert len(stage.door.requests) == asked
    assert stage.client.written == said


@identified(ANSWERS)
async def test_answers(case: Case) -> None:
    outcomes = set()
    for pieces in segmentations(case.answer, case.name).values():
        stage = Stage()
        await stage.says(case.request or text(GET))
        for piece in pieces:
            if not stage.upstream.ended:
                await stage.answers(piece)
        if case.ends:
            stage.upstream.lose(ConnectionResetError() if case.ends == "reset" else None)
        await stage.turn()
        check_answer(case, stage)
        outcomes.add(contents(stage.client.written))
    assert len(outcomes) == 1 or case.broken is not None


def check_answer(case: Case, stage: Stage) -> None:
    (record,) = stage.ledger.records
    got = stage.client.written
    assert b"poison" not in got.partition(b"\r\n\r\n")[2].replace(b"poisoned", b"") or case.broken
    if case.refused:
        assert got.count(b"HTTP/1.1 ") == got.count(b"HTTP/1.1 103 ") + 1
        assert b"HTTP/1.1 502 " in got
        assert (record.end, record.detail) == ("upstream-invalid", case.refused)
        assert stage.upstream.ended
    elif case.broken is not None:
        assert record.detail == case.broken
        if record.status == 502:  # it broke at once: nothing had been said yet
            assert record.end == "upstream-invalid" and case.broken
            return
        assert record.end == "upstream-failed"
        assert stage.client.ended == "abort"
        assert not got.endswith(b"0\r\n\r\n")
    else:
        assert contents(got.replace(DATE, b"")) == contents(case.passed or b"")
        assert (record.end, record.detail) == ("complete", "")
        assert len(stage.upstreams) == case.pooled


def contents(answer: bytes) -> tuple[bytes, bytes]:
    """Return the heads, and the content without its chunks: those may be cut anywhere."""
    at = answer.rindex(b"\r\n\r\n", 0, len(answer) - 5 if answer.endswith(b"0\r\n\r\n") else len(answer)) + 4
    head, body = answer[:at], answer[at:]
    if b"Transfer-Encoding: chunked\r\n" not in head:
        return head, body
    content = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return head, content + b"|" + body
        content, body = content + body[:length], body[length + 2 :]
    return head, content
