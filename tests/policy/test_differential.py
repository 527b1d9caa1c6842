"""The compiled engine and Cedar's own agree: on random policies, on sharp edges, on the official corpus."""

import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cedarpy
import pytest

from ztproxy.policy import literals
from ztproxy.policy.operations import offset
from ztproxy.policy.program import Program, environment, evaluate
from ztproxy.policy.sources import parse
from ztproxy.policy.values import CedarSet, Entity, Uid, Value

FULL = bool(os.environ.get("ZTPROXY_FULL"))


@pytest.mark.parametrize("seed", range(40, 60) if FULL else (11, 12))
def test_random_policies(differential: ModuleType, seed: int) -> None:
    seen, difference = differential.rounds(4000, seed)
    assert not difference, difference
    assert seen["compared"] >= 4000


def test_sharp_edges(differential: ModuleType) -> None:
    assert list(differential.targets()) == []


# ------------------------------------------------------------------ the official corpus


def value(json_value: object) -> Value:
    """Like literals.from_json, with the corpus' own ways to write datetimes."""
    if isinstance(json_value, list):
        return CedarSet([value(one) for one in json_value])
    if isinstance(json_value, dict) and "__extn" in json_value:
        call = json_value["__extn"]
        if call["fn"] == "offset":
            return offset(*map(value, call["args"]))
        return literals.from_json(json_value)
    if isinstance(json_value, dict) and "__entity" not in json_value:
        return {name: value(inner) for name, inner in json_value.items()}
    return literals.from_json(json_value)


def corpus(folder: Path) -> Iterator[tuple[Path, dict]]:
    found = sorted(one for one in folder.rglob("*.json") if not one.name.endswith(".entities.json"))
    for path in found if FULL else found[::12]:
        yield path, json.loads(path.read_text())


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vectors = os.environ.get("ZTPROXY_VECTORS")
    if not vectors:
        pytest.skip("ZTPROXY_VECTORS is not set")
    folder = tmp_path_factory.mktemp("corpus")
    with tarfile.open(Path(vectors) / "cedar" / "corpus-tests.tar.gz") as archive:
        if hasattr(tarfile, "data_filter"):  # Python 3.11.4
            archive.extractall(folder, filter="data")
        else:
            archive.extractall(folder)
    return folder


@pytest.mark.vectors
@pytest.mark.timeout(900)
def test_official_corpus(differential: ModuleType, corpus_folder: Path) -> None:
    seen: Counter[str] = Counter()
    for path, case in corpus(corpus_folder):
        text = (corpus_folder / case["policies"]).read_text()
        try:
            schema = cedarpy.Schema.from_str((corpus_folder / case["schema"]).read_text())
            entities = cedarpy.Entities.from_json_str((corpus_folder / case["entities"]).read_text(), schema)
            cedarpy.policies_to_pst(text)
        except ValueError:
            seen["not readable by cedarpy"] += 1
            continue
        statements, problems = parse([(path.name, text)])
        assert not problems, (path, problems)
        program, store = Program(statements), stored(differential, str(entities))
        for request in case["requests"]:
            check(path, program, store, request)
            seen["requests"] += 1
    assert seen["requests"] > (61_000 if FULL else 4_000), seen


def stored(differential: ModuleType, entities: str) -> dict[Uid, Entity]:
    found = differential.store_of([one | {"attrs": {}, "tags": {}} for one in json.loads(entities)])
    for one in json.loads(entities):
        uid = differential._uid(one["uid"])
        found[uid] = Entity(uid, value(one["attrs"]), found[uid].ancestors, value(one.get("tags", {})))
    return found


def check(path: Path, program: Program, store: dict[Uid, Entity], request: dict) -> None:
    principal, action, resource = (Uid(**request[key]) for key in ("principal", "action", "resource"))
    part = program.slice(
        principal.type, store.get(action) or Entity(action, {}), store.get(resource) or Entity(resource, {})
    )
    env = environment(principal, action, resource, value(request["context"]), store)
    ours = evaluate(part, env)
    failing = request["errors"]
    assert ours.allow == (request["decision"] == "allow" and not failing), (path, request, ours)
    assert len(ours.errors) == len(failing), (path, request, ours)
    if not failing:
        assert set(ours.policies) == set(request["reason"]), (path, request, ours)
