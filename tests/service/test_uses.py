"""Reports of use: many become few, and none is lost while the store is away."""

from collections.abc import Mapping, Sequence

from ztproxy.service.uses import BATCH, Uses


class Written:
    """What is written; away, nothing is."""

    def __init__(self) -> None:
        self.steps: list[dict[str, int]] = []
        self.away = False

    async def touch(self, uses: Mapping[str, int]) -> Sequence[str]:
        if self.away:
            return list(uses)
        self.steps.append(dict(uses))
        return ()


async def test_reports_of_all_workers_are_one_use_each_at_its_newest_time() -> None:
    written = Written()
    uses = Uses(written.touch)
    for worker in range(8):
        uses.note(("ses_1", "ses_2"), 1_000 + worker)
    uses.note(("ses_1",), 500)
    await uses.write()
    assert written.steps == [{"ses_1": 1_007, "ses_2": 1_007}]
    await uses.write()
    assert len(written.steps) == 1


async def test_what_can_not_be_written_now_is_written_later() -> None:
    written = Written()
    uses = Uses(written.touch)
    everybody = [f"ses_{number}" for number in range(2 * BATCH + 1)]
    uses.note(everybody, 1_000)
    written.away = True
    await uses.write()
    assert len(uses) == len(everybody)
    uses.note(("ses_0",), 2_000)
    written.away = False
    await uses.write()
    assert [len(step) for step in written.steps] == [BATCH, BATCH, 1]
    assert {**written.steps[0], **written.steps[1], **written.steps[2]} == dict.fromkeys(everybody, 1_000) | {
        "ses_0": 2_000
    }
