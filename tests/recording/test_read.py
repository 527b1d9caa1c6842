"""Reading: sessions as people know them, exchanges whole or said to be unfinished, live logs and copies."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import astuple
from recording_room import START, Room, decision, outcome, started

from ztproxy.model.record import SessionRecord
from ztproxy.recording.catalog import Catalog
from ztproxy.recording.line import GapRecord
from ztproxy.recording.read import Exchange, NoSuchSession, Reader, as_json
from ztproxy.store.index import Index

DEPLOYER = "Workload::spiffe://corp.example/ci/deployer"


def fill(room: Room) -> None:
    audit = room.audit()
    audit.session(started())
    audit.decision(decision(1))
    audit.decision(decision(2, allow=False, decided="forbid", code="access-denied"))
    audit.decision(decision(3, session="", principal=DEPLOYER, name="deployer", device=""))
    audit.outcome(*astuple(outcome(1)))
    audit.outcome(*astuple(outcome(3, session="", sent=7)))
    audit.decision(decision(4))
    audit.session(started(event="ended", at=START + 100, detail="sign-out"))
    audit.decision(decision(5, session="ses_dave", principal="User::demo:dave", name="Dave"))


@pytest.fixture
def filled(room: Room) -> Room:
    fill(room)
    room.sealer().step()
    return room


def test_sessions_are_summed_up(filled: Room) -> None:
    reader = Reader(filled.directory)
    carol, dave, deployer = sorted(reader.sessions(), key=lambda one: one.name)
    assert (carol.id, carol.principal, carol.device) == ("ses_carol", "User::demo:carol", "dev_laptop")
    assert (carol.permitted, carol.refused, carol.open, carol.records, carol.sent) == (2, 1, 1, 6, 100)
    assert (carol.started_at, carol.ended_at, carol.ended) == (START, START + 100, "sign-out")
    assert (dave.id, dave.permitted, dave.open, dave.ended_at) == ("ses_dave", 1, 1, 0)
    assert (deployer.id, deployer.sent, deployer.open, deployer.records) == (DEPLOYER, 7, 0, 2)
    assert [one.id for one in reader.sessions(1)] == ["ses_carol"]
    reader.close()


def test_a_session_is_a_row_of_exchanges(filled: Room) -> None:
    reader = Reader(filled.directory)
    events = reader.events("ses_carol")
    assert isinstance(events[0], SessionRecord) and events[0].event == "started"
    assert events[1] == Exchange((2, 5), decision(1), outcome(1))
    assert events[2] == Exchange((3,), decision(2, allow=False, decided="forbid", code="access-denied"))
    assert events[3] == Exchange((7,), decision(4))
    assert [event.finished for event in events if isinstance(event, Exchange)] == [True, True, False]
    assert isinstance(events[4], SessionRecord) and events[4].event == "ended"
    assert reader.events(DEPLOYER)[0] == Exchange(
        (4, 6),
        decision(3, session="", principal=DEPLOYER, name="deployer", device=""),
        outcome(3, session="", sent=7),
    )
    assert reader.events("nobody") == []
    reader.close()


def test_a_session_that_crashed_is_listed(room: Room) -> None:
    """No end was ever written: it is there from its first record on."""
    audit = room.audit()
    audit.session(started())
    audit.decision(decision(1))
    room.alive.clear()
    room.sealer().step()
    with closing(Reader(room.directory)) as reader:
        (summary,) = reader.sessions()
    assert (summary.id, summary.open, summary.ended_at) == ("ses_carol", 1, 0)


def test_an_outcome_finds_its_decision_after_a_restart(room: Room) -> None:
    audit = room.audit()
    audit.decision(decision(1, session="", principal=DEPLOYER))
    sealer = room.sealer()
    sealer.step()
    sealer.close()
    audit.outcome(*astuple(outcome(1, session="")))
    room.sealer().step()
    for directory in (room.directory, Path(shutil.copytree(room.directory, room.journals / "copy"))):
        (directory / "index.db").unlink(missing_ok=directory != room.directory)
        with closing(Reader(directory)) as reader:
            (event,) = reader.events(DEPLOYER)
        assert isinstance(event, Exchange) and event.outcome is not None and event.decision is not None


def test_a_session_is_found_by_a_unique_beginning(filled: Room) -> None:
    reader = Reader(filled.directory)
    assert reader.find("ses_c").id == reader.find("ses_carol").id == "ses_carol"
    with pytest.raises(NoSuchSession, match="could be any of ses_carol, ses_dave"):
        reader.find("ses_")
    for nobody in ("ses_x", "", "%", "_"):
        with pytest.raises(NoSuchSession, match="no recorded session"):
            reader.find(nobody)
    reader.close()


@pytest.mark.parametrize("index", [True, False])
def test_a_copy_on_read_only_media_reads_the_same(filled: Room, tmp_path: Path, index: bool) -> None:
    copy = Path(shutil.copytree(filled.directory, tmp_path / "copy"))
    for path in copy.glob("index.db*"):
        if not index:
            path.unlink()
    before = sorted(path.name for path in copy.iterdir())
    live, reader = Reader(filled.directory), Reader(copy)
    assert reader.sessions() == live.sessions()
    assert reader.events("ses_carol") == live.events("ses_carol")
    assert sorted(path.name for path in copy.iterdir()) == before
    live.close()
    reader.close()


def test_an_index_that_lies_behind_or_is_of_another_log_is_put_right(filled: Room, tmp_path: Path) -> None:
    other = Room(tmp_path / "other") if (tmp_path / "other").mkdir() is None else None
    assert other is not None
    audit = other.audit()
    for number in range(40):
        audit.decision(decision(number, session="ses_other"))
    other.sealer().step()
    other.close()
    copy = Path(shutil.copytree(filled.directory, tmp_path / "copy"))
    for path in copy.glob("index.db*"):
        path.unlink()
    for path in other.directory.glob("index.db*"):
        shutil.copy(path, copy / path.name)
    with closing(Reader(copy)) as reader:
        assert {one.id for one in reader.sessions()} == {"ses_carol", "ses_dave", DEPLOYER}


def test_gaps_are_shown(room: Room) -> None:
    room.writer().append(b"no record")
    room.sealer().step()
    reader = Reader(room.directory)
    (summary,) = reader.sessions()
    (event,) = reader.events(summary.id)
    assert isinstance(event, GapRecord) and event.reason == "an entry is not a record"
    reader.close()


def test_following_yields_what_comes_to_its_end(filled: Room) -> None:
    filled.close()
    reader = Reader(filled.directory)
    followed = reader.follow("ses_carol")
    seen = []
    while (event := next(followed)) is not None:
        seen.append(event)
    assert len(seen) == 4  # started, one answered, one refused, ended; one is under way
    audit = filled.audit("w1-1-1")
    audit.outcome(*astuple(outcome(4)))
    audit.decision(decision(6))
    sealer = filled.sealer()
    sealer.step()
    assert next(followed) == Exchange((7, 10), decision(4), outcome(4))
    assert next(followed) is None
    audit.outcome(*astuple(outcome(6)))
    sealer.step()
    assert next(followed) == Exchange((11, 12), decision(6), outcome(6))
    assert next(followed) is None
    reader.close()


def test_a_very_long_session_shows_its_end(room: Room) -> None:
    audit = room.audit(segment_size=1 << 20)
    for number in range(200):
        audit.decision(decision(number))
        audit.outcome(*astuple(outcome(number)))
    room.sealer().step()
    reader = Reader(room.directory)
    events = reader.events("ses_carol", limit=11)
    assert len(events) == 6
    assert isinstance(events[0], Exchange) and events[0].decision is None
    assert events[-1] == Exchange((399, 400), decision(199), outcome(199))
    reader.close()


def test_events_are_plain_for_programs(filled: Room) -> None:
    with closing(Reader(filled.directory)) as reader:
        events = reader.events("ses_carol")
    plain = as_json(events[1])
    assert isinstance(plain, dict) and plain["kind"] == "exchange"
    assert plain["decision"]["policies"] == ["support-team"] or plain["decision"]["policies"] == (
        "support-team",
    )
    assert plain["outcome"]["status"] == 200


def test_the_log_alone_gives_what_keeping_up_gave(filled: Room, tmp_path: Path) -> None:
    kept = Catalog.copy(filled.directory)
    anew = Catalog(Index.copy(tmp_path / "nothing"))
    anew.catch_up(filled.directory)
    assert anew.sessions() == kept.sessions() and anew.reached == kept.reached
    for summary in kept.sessions():
        assert list(anew.places(summary.id)) == list(kept.places(summary.id))
    kept.close()
    anew.close()


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Reader(tmp_path / "nowhere")
