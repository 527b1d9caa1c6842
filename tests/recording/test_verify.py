"""Verification names what was done to a log. Every byte, every record, every cut of a small log is tried."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple
from recording_room import Room, decision, outcome, started

from ztproxy.recording import note
from ztproxy.recording.files import Text
from ztproxy.recording.line import digest, render
from ztproxy.recording.verify import Verdict, verify

FIRST, SECOND = "log-00000001.jsonl", "log-00000002.jsonl"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """Seven records, four in the first file and three in the second."""
    room = Room(tmp_path_factory.mktemp("sealed"))
    audit = room.audit()
    sealer = room.sealer(file_size=1000)
    audit.session(started())
    for number in range(1, 4):
        audit.decision(decision(number))
        sealer.step()
        audit.outcome(*astuple(outcome(number, session="ses_other" if number == 2 else "ses_carol")))
        sealer.step()
    yield room
    room.close()


@pytest.fixture
def log(sealed: Room, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed.directory, tmp_path / "copy"))


def files(directory: Path) -> dict[str, list[bytes]]:
    return {path.name: path.read_bytes().splitlines(True) for path in sorted(directory.glob("log-*.jsonl"))}


def one(verdict: Verdict) -> tuple[str, int]:
    assert not verdict.ok
    assert len(verdict.problems) == 1, verdict.problems
    return verdict.problems[0].kind, verdict.problems[0].record


def test_a_sound_log_verifies(log: Path) -> None:
    assert {name: len(lines) for name, lines in files(log).items()} == {FIRST: 4, SECOND: 3}
    verdict = verify(log)
    assert (verdict.ok, verdict.count, verdict.sealed, verdict.unsealed) == (True, 7, 7, 0)
    assert verdict.problems == () and verdict.origin == "test/node" and verdict.sealed_at > 0
    assert verdict.key == "beside the log"
    assert verify(log, public_key=note.parse_key((log / "log.pub").read_text())).key == "given"


def test_an_empty_log_verifies(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.sealer()
    assert verify(room.directory).ok
    room.close()


def test_a_session_is_counted(log: Path) -> None:
    proof = verify(log, session="ses_carol").session
    assert proof is not None and (proof.records, proof.first, proof.last) == (6, 1, 7)
    proof = verify(log, session="ses_other").session
    assert proof is not None and (proof.records, proof.first, proof.last) == (1, 5, 5)
    proof = verify(log, session="carol").session
    assert proof is not None and proof.records == 0


def test_every_flipped_bit_of_every_record_names_the_record(log: Path) -> None:
    record = 0
    for name, lines in files(log).items():
        path, whole = log / name, (log / name).read_bytes()
        offset = 0
        for line in lines:
            record += 1
            for index in range(len(line)):
                for bit in (0x01, 0x20):
                    data = bytearray(whole)
                    data[offset + index] ^= bit
                    path.write_bytes(data)
                    kind, named = one(verify(log))
                    assert (named, kind) == (record, "altered"), (name, record, index, bit, line)
            offset += len(line)
        path.write_bytes(whole)


@pytest.mark.parametrize("byte", [b"\n", b" ", b"}"])
def test_every_byte_put_in_names_the_record(log: Path, byte: bytes) -> None:
    record = 0
    for name, lines in files(log).items():
        path, whole = log / name, (log / name).read_bytes()
        offset = 0
        for line in lines:
            record += 1
            for index in range(len(line)):
                path.write_bytes(whole[: offset + index] + byte + whole[offset + index :])
                verdict = verify(log)
                if byte == b"\n" and index in (0, len(line) - 1):  # an empty line before or after it
                    assert one(verdict) == ("garbage", 0)
                    assert verdict.count == (record if index else record - 1)
                else:
                    assert one(verdict) == ("altered", record), (record, index)
            offset += len(line)
        path.write_bytes(whole)


def test_every_byte_taken_out_names_the_record(log: Path) -> None:
    record = 0
    for name, lines in files(log).items():
        path, whole = log / name, (log / name).read_bytes()
        offset = 0
        for line in lines:
            record += 1
            for index in range(len(line)):
                path.write_bytes(whole[: offset + index] + whole[offset + index + 1 :])
                kind, named = one(verify(log))
                assert named == record, (record, index)
                assert kind in (("altered", "truncated") if line is lines[-1] else ("altered",))
            offset += len(line)
        path.write_bytes(whole)


def rewrite(log: Path, lines: list[bytes], split: int = 4) -> None:
    (log / FIRST).write_bytes(b"".join(lines[:split]))
    (log / SECOND).write_bytes(b"".join(lines[split:]))


def all_lines(log: Path) -> list[bytes]:
    return [line for lines in files(log).values() for line in lines]


def test_every_removed_record_is_named(log: Path) -> None:
    lines = all_lines(log)
    for index in range(7):
        rewrite(log, lines[:index] + lines[index + 1 :])
        verdict = verify(log)
        assert one(verdict) == ("missing" if index < 6 else "truncated", index + 1)
        assert verdict.count == index


def test_every_removed_run_is_named_by_its_first(log: Path) -> None:
    lines = all_lines(log)
    for start in range(7):
        for end in range(start + 1, 8):
            rewrite(log, lines[:start] + lines[end:])
            assert one(verify(log)) == ("missing" if end < 7 else "truncated", start + 1)


def test_every_swap_names_the_first_displaced(log: Path) -> None:
    lines = all_lines(log)
    for first in range(7):
        for second in range(first + 1, 7):
            swapped = lines.copy()
            swapped[first], swapped[second] = lines[second], lines[first]
            rewrite(log, swapped)
            assert one(verify(log)) == ("reordered", first + 1), (first, second)


def test_every_move_names_the_first_displaced(log: Path) -> None:
    lines = all_lines(log)
    for source in range(7):
        for target in range(7):
            if source != target:
                moved = lines[:source] + lines[source + 1 :]
                moved.insert(target, lines[source])
                rewrite(log, moved)
                assert one(verify(log)) == ("reordered", min(source, target) + 1), (source, target)


def test_every_duplicate_is_named(log: Path) -> None:
    lines = all_lines(log)
    for source in range(7):
        for target in range(source + 1, 8):
            rewrite(log, [*lines[:target], lines[source], *lines[target:]])
            assert one(verify(log)) == ("duplicate", source + 1), (source, target)


def test_every_cut_is_named(log: Path) -> None:
    """The last file cut at every byte, also to nothing and with the file gone."""
    whole = (log / SECOND).read_bytes()
    ends = [0]
    for line in files(log)[SECOND]:
        ends.append(ends[-1] + len(line))
    for length in range(len(whole)):
        (log / SECOND).write_bytes(whole[:length])
        complete = sum(1 for end in ends[1:] if end <= length)
        assert one(verify(log)) == ("truncated", 5 + complete), length
    (log / SECOND).unlink()
    verdict = verify(log)
    assert one(verdict) == ("file-missing", 5)
    assert verdict.problems[0].file == SECOND


def test_every_cut_of_an_earlier_file_is_named(log: Path) -> None:
    whole = (log / FIRST).read_bytes()
    ends = [0]
    for line in files(log)[FIRST]:
        ends.append(ends[-1] + len(line))
    for length in range(len(whole)):
        (log / FIRST).write_bytes(whole[:length])
        complete = sum(1 for end in ends[1:] if end <= length)
        kind, named = one(verify(log))
        assert named == 1 + complete, length
        assert kind in ("missing", "altered", "truncated")


def test_a_missing_file_is_named(log: Path) -> None:
    (log / FIRST).unlink()
    verdict = verify(log)
    assert one(verdict) == ("file-missing", 1)
    assert verdict.problems[0].file == FIRST


def test_a_record_moved_to_the_next_file_is_noticed(log: Path) -> None:
    lines = all_lines(log)
    for split in range(8):
        rewrite(log, lines, split)
        assert verify(log).ok == (split == 4), split


def test_every_flipped_bit_of_the_checkpoint_is_noticed(log: Path) -> None:
    path = log / "checkpoint"
    whole = path.read_bytes()
    for index in range(len(whole)):
        for bit in range(8):
            data = bytearray(whole)
            data[index] ^= 1 << bit
            path.write_bytes(data)
            assert one(verify(log))[0] in ("checkpoint-altered", "wrong-key"), (index, bit)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert one(verify(log))[0] in ("checkpoint-altered", "wrong-key"), length


def test_every_flipped_bit_of_the_public_key_is_noticed(log: Path) -> None:
    path = log / "log.pub"
    whole = path.read_bytes()
    for index in range(len(whole) - 1):
        for bit in range(8):
            data = bytearray(whole)
            data[index] ^= 1 << bit
            path.write_bytes(data)
            kinds = {problem.kind for problem in verify(log).problems}
            assert kinds & {"key-altered", "wrong-key"} or chr(data[index]).isspace(), (index, bit)


@pytest.mark.parametrize(("name", "kind"), [("checkpoint", "checkpoint-missing"), ("log.pub", "key-missing")])
def test_a_missing_companion_is_named_and_the_chain_still_checked(log: Path, name: str, kind: str) -> None:
    (log / name).unlink()
    verdict = verify(log)
    assert one(verdict) == (kind, 0) and verdict.count == 7
    lines = all_lines(log)
    rewrite(log, [*lines[:2], *lines[3:]])
    assert [problem.kind for problem in verify(log).problems] == [kind, "missing"]


def test_a_log_made_anew_with_another_key_is_caught_by_the_key_one_knows(log: Path) -> None:
    known = note.parse_key((log / "log.pub").read_text())
    forger = Ed25519PrivateKey.generate()
    lines = chain_anew(all_lines(log)[:-1])
    rewrite(log, lines)
    length = (log / SECOND).stat().st_size
    forged = note.Checkpoint("test/node", 6, digest(lines[-1][:-1]), 5, SECOND, length)
    (log / "checkpoint").write_bytes(note.sign(forged, forger))
    assert one(verify(log))[0] == "wrong-key"
    (log / "log.pub").write_text(note.public_key("test/node", forger).text() + "\n")
    assert verify(log).ok  # the key beside the log proves nothing against who can replace it too
    assert one(verify(log, public_key=known))[0] == "wrong-key"


def chain_anew(lines: list[bytes]) -> list[bytes]:
    """What a forger without the key does: alter, then recompute every hash."""
    import json

    previous, made = note.first_hash("test/node"), []
    for number, line in enumerate(lines, 1):
        parsed = json.loads(line)
        record = line[line.index(b'"record":') + 9 : -2].replace(b"Carol", b"Mallory")
        made.append(render(number, previous, parsed["src"], record) + b"\n")
        previous = digest(made[-1][:-1])
    return made


def test_a_recomputed_chain_does_not_fit_the_checkpoint(log: Path) -> None:
    rewrite(log, chain_anew(all_lines(log)))
    verdict = verify(log)
    assert one(verdict) == ("altered", 7)
    assert "made anew" in verdict.problems[0].explanation


def test_a_record_slipped_in_is_noticed(log: Path) -> None:
    lines = all_lines(log)
    for index in range(8):
        previous = digest(lines[index - 1][:-1]) if index else note.first_hash("test/node")
        extra = render(index + 1, previous, "w9-9-9:1", b'{"kind":"outcome","id":"x","at":1}') + b"\n"
        rewrite(log, [*lines[:index], extra, *lines[index:]])
        verdict = verify(log)
        if index == 7:  # behind the checkpoint: not sealed, and said to be so
            assert verdict.ok and verdict.unsealed == 1
        else:
            assert not verdict.ok and verdict.problems[0].record == index + 1


def unsealed(log: Path, count: int) -> list[bytes]:
    lines = all_lines(log)
    previous = digest(lines[-1][:-1])
    for number in range(8, 8 + count):
        record = b'{"kind":"outcome","id":"x","at":1}'
        lines.append(render(number, previous, f"w0-1-1:{number}", record) + b"\n")
        previous = digest(lines[-1][:-1])
    return lines


def test_what_is_not_yet_sealed_is_counted_and_still_checked(log: Path) -> None:
    lines = unsealed(log, 3)
    rewrite(log, lines)
    verdict = verify(log)
    assert (verdict.ok, verdict.count, verdict.sealed, verdict.unsealed) == (True, 10, 7, 3)
    rewrite(log, [*lines[:8], lines[8].replace(b'"at":1', b'"at":2'), *lines[9:]])
    kind, record = one(verify(log))
    assert kind == "altered" and record in (9, 10)
    rewrite(log, [*lines[:7], *lines[8:]])
    assert one(verify(log)) == ("missing", 8)


def test_a_line_being_written_is_no_problem_but_garbage_is(log: Path) -> None:
    lines = unsealed(log, 1)
    for length in range(len(lines[7])):
        rewrite(log, [*lines[:7], lines[7][:length]])
        verdict = verify(log)
        assert verdict.ok and verdict.unsealed == 0
    for garbage in (b"x", b"\n", b"garbage\n", b'{"n":8,"prev":"00', b"\x00" * 100):
        rewrite(log, [*lines[:7], garbage])
        assert one(verify(log))[0] == "garbage", garbage


def test_sources_must_be_in_order_too(tmp_path: Path) -> None:
    """A chain that a faulty sealer signed: an entry of a journal left out, or sealed twice."""
    key = Ed25519PrivateKey.generate()
    (tmp_path / "log.pub").write_text(note.public_key("test/node", key).text())
    for sources, record in ((["a:1", "a:3"], 2), (["a:1", "b:1", "a:1"], 3), (["a:2"], 1), (["a:x"], 1)):
        previous, lines = note.first_hash("test/node"), b""
        for number, source in enumerate(sources, 1):
            line = render(number, previous, source, b'{"kind":"outcome","id":"x","at":1}')
            previous, lines = digest(line), lines + line + b"\n"
        (tmp_path / FIRST).write_bytes(lines)
        checkpoint = note.Checkpoint("test/node", len(sources), previous, 5, FIRST, len(lines))
        (tmp_path / "checkpoint").write_bytes(note.sign(checkpoint, key))
        assert one(verify(tmp_path)) == ("source", record)


def test_a_problem_reads_as_a_sentence(log: Path) -> None:
    lines = all_lines(log)
    rewrite(log, [*lines[:2], lines[2].replace(b"complete", b"Complete").replace(b"200", b"403"), *lines[3:]])
    problem = verify(log).problems[0]
    assert str(problem) == (f"record 3 altered ({FIRST}:3): has not the hash that the record after it knows")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_tampering_goes_unnoticed(sealed: Room, log: Path, data: st.DataObject) -> None:
    """Any content of the files that is not the sealed one is a problem."""
    kept = all_lines(sealed.directory)
    whole, size = b"".join(kept), sum(map(len, kept))
    start = data.draw(st.integers(0, size))
    end = data.draw(st.integers(start, size))
    piece = st.tuples(st.integers(0, size), st.integers(0, size)).map(lambda ends: whole[ends[0] : ends[1]])
    changed = whole[:start] + data.draw(st.binary(max_size=80) | piece) + whole[end:]
    border = sum(map(len, kept[:4])) + (len(changed) - size if start < sum(map(len, kept[:4])) else 0)
    border = max(0, min(border, len(changed)))
    (log / FIRST).write_bytes(changed[:border])
    (log / SECOND).write_bytes(changed[border:])
    verdict = verify(log)
    assert verdict.ok == (changed == whole) or (verdict.unsealed == 0 and changed.startswith(whole))


def test_text_knows_its_end() -> None:
    assert Text(1, 1, 10, b"abc", True).end == 14
    assert Text(1, 1, 10, b"abc", False).end == 13
