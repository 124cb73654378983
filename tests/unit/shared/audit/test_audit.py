"""Audit records: one for each generation, whatever ends it, and never lost by a dead process."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from shared.audit import objects as objects_module
from shared.audit.objects import PREFIX, is_expired, sweep
from shared.audit.record import _joined
from shared.config.models import Model
from shared.config.settings import Settings
from shared.config.stages.spec import StageTable
from shared.erasure.generations import GenerationEraser
from shared.erasure.owner import OwnerEraser
from shared.errors import ConfigurationError, FilesUnavailable, Unavailable
from shared.files.objects import ObjectStore
from shared.files.store import FileStore
from shared.files.walk import Walk
from shared.log.events import Counts, End, Failure, Reset, Token, encode
from shared.log.ids import EventId
from shared.log.store import Store
from shared.queue.endings import cancel
from shared.queue.leaving import forget
from shared.redis import keys
from shared.usage.settlement import Settlement
from tests.support.generation import ID, Holder, create, let_lapse, token
from workers.stages.contract import Services
from workers.stages.kinds import build_stage

OTHER = "gen_otherother"
REQUEST = b'{"messages":[{"role":"user","content":"why?"}],"params":{"temperature":0}}'


class Auditing:
    """A store with a file store and a model that has an audit."""

    def __init__(self, redis, folder: Path, options: str = "") -> None:
        models = folder / "models.toml"
        models.write_text(
            '[models.demo]\nbackend = "demo"\n[models.plain]\nbackend = "demo"\n'
            f'[[models.demo.stages]]\nstage = "audit"\n{options}\n'
        )
        self.settings = Settings(
            redis_url="redis://test", data_dir=str(folder), models=str(models), retention_s=100
        )
        self.redis = redis
        self.store = Store(redis, self.settings)
        self.settlement = Settlement(redis, self.store, self.settings)
        self.folder = folder / "files" / "audit"

    async def look(self) -> None:
        await self.settlement.look(keys.QUEUE)

    async def unsettled(self) -> int:
        return int(await self.redis.zcard(keys.unsettled()))

    def paths(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def record(self) -> dict:
        (path,) = self.paths()
        return json.loads(path.read_bytes())

    async def complete(self, generation_id: str = ID, *texts: str, **fields: str | bytes) -> None:
        await create(self.store, generation_id, **{"request": REQUEST} | fields)
        holder = await Holder.begin(self.store, "mine", generation_id)
        end = encode(End("completed", "stop", usage=Counts(3, 2, 5)))
        raws = [*map(token, texts or ("be", "cause")), end]
        await self.store.append_many([holder.batch(*raws, status="completed")])
        await forget(self.store, generation_id)


@pytest.fixture
def auditing(redis, tmp_path) -> Auditing:
    return Auditing(redis, tmp_path)


async def test_a_completed_generation_has_a_record_with_request_answer_owner_and_times(auditing):
    await auditing.complete()
    await auditing.look()
    record = auditing.record()

    assert record["id"] == ID
    assert (record["owner"], record["session"], record["model"]) == ("alice", "chat", "demo")
    assert record["request"]["messages"] == [{"role": "user", "content": "why?"}]
    assert record["request"]["params"] == {"temperature": 0}
    assert record["metadata"] == {"a": 1}
    assert record["text"] == "because"
    assert (record["status"], record["finish_reason"]) == ("completed", "stop")
    assert record["usage"]["total_tokens"] == 5
    assert record["created_at_ms"] <= record["ended_at_ms"]
    assert [event["type"] for event in record["events"]] == ["start", "token", "end"]
    assert record["events"][1]["text"] == "because"
    assert record["events"][1]["id"].endswith("-3"), "of the last piece"
    assert await auditing.unsettled() == 0


async def test_other_models_have_no_record(auditing):
    await auditing.complete(model="plain")
    await auditing.look()

    assert auditing.paths() == []
    assert await auditing.unsettled() == 0


@pytest.mark.parametrize("began", [True, False])
async def test_a_cancelled_generation_has_a_record(auditing, began):
    await create(auditing.store, request=REQUEST)
    if began:
        await (await Holder.begin(auditing.store, "mine")).say("so far")
    await cancel(auditing.store, ID)
    await auditing.look()

    assert auditing.record()["status"] == "cancelled"
    assert auditing.record()["text"] == ("so far" if began else "")


async def test_a_failed_generation_has_a_record_with_its_error(auditing):
    await create(auditing.store, request=REQUEST)
    holder = await Holder.begin(auditing.store, "mine")
    end = End("failed", "error", error=Failure("upstream_error", "it broke", False))
    await auditing.store.append_many([holder.batch(token("so "), encode(end), status="failed")])
    await forget(auditing.store, ID)
    await auditing.look()

    assert auditing.record()["error"]["code"] == "upstream_error"
    assert auditing.record()["text"] == "so "


async def test_a_generation_of_two_workers_has_one_record_of_both(auditing):
    await create(auditing.store, request=REQUEST)
    await (await Holder.begin(auditing.store, "dead")).say("first ")
    await let_lapse(auditing.store)
    second = await Holder.begin(auditing.store, "alive")
    raws = encode(Reset("restarted")), token("second"), encode(End("completed", "stop"))
    await auditing.store.append_many([second.batch(*raws, status="completed")])
    await forget(auditing.store, ID)
    await auditing.look()
    record = auditing.record()

    assert (record["attempts"], record["text"]) == (2, "second")
    assert [e.get("text") for e in record["events"] if e["type"] == "token"] == ["first ", "second"]


async def test_a_deleted_generation_leaves_its_record(auditing):
    await create(auditing.store, request=REQUEST)
    await (await Holder.begin(auditing.store, "mine")).say("so far")
    meta = await auditing.store.meta(ID)
    eraser = GenerationEraser(auditing.redis, auditing.store, auditing.settings)
    await eraser.erase(meta)

    assert auditing.record()["text"] == "so far"
    assert auditing.record()["error"]["code"] == "deleted"


async def test_while_the_file_store_is_away_nothing_is_lost_or_deleted(
    auditing, monkeypatch, caplog
):
    async def away(*args, **kwargs):
        raise FilesUnavailable("no disk")

    await auditing.complete()
    await auditing.complete(OTHER, model="plain")
    meta = await auditing.store.meta(ID)
    with monkeypatch.context() as broken:
        broken.setattr(ObjectStore, "put", away)
        await auditing.look()
        assert "audit not written" in caplog.messages
        assert await auditing.unsettled() == 1, "the other model is settled"
        eraser = GenerationEraser(auditing.redis, auditing.store, auditing.settings)
        with pytest.raises(FilesUnavailable):
            await eraser.erase(meta)
    await auditing.look()

    assert auditing.record()["text"] == "because"
    assert await auditing.unsettled() == 0


async def test_trouble_with_redis_during_the_audit_is_unavailable(auditing, monkeypatch):
    async def away(*args, **kwargs):
        raise Unavailable("Redis cannot be reached")

    await auditing.complete()
    monkeypatch.setattr(Store, "with_request", away)
    with pytest.raises(Unavailable):
        await auditing.look()

    assert await auditing.unsettled() == 1


async def test_a_record_is_written_once(auditing):
    await auditing.complete()
    await auditing.look()
    (path,) = auditing.paths()
    before = path.stat().st_mtime_ns, path.read_bytes()
    await auditing.redis.delete(keys.log(ID))  # the log expires before meta
    await forget(auditing.store, ID)
    await auditing.look()

    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


@pytest.mark.parametrize(("options", "is_kept"), [("", False), ("keep = true", True)])
async def test_forgetting_an_owner_erases_the_records_unless_they_are_kept(
    redis, tmp_path, options, is_kept
):
    auditing = Auditing(redis, tmp_path, options)
    await auditing.complete()
    await auditing.complete(OTHER, owner="bob")
    await auditing.look()
    files = FileStore(redis, auditing.settings)
    eraser = OwnerEraser(redis, auditing.store, files, auditing.settings)
    after, erased = "", 0
    while True:
        step = await eraser.step("alice", after)
        erased += step.deleted["audit"]
        if not (after := step.next):
            break

    left = {json.loads(path.read_bytes())["owner"] for path in auditing.paths()}
    assert left == ({"alice", "bob"} if is_kept else {"bob"})
    assert erased == (0 if is_kept else 1)


async def test_records_are_deleted_when_their_days_are_over(redis, tmp_path):
    auditing = Auditing(redis, tmp_path, "days = 30\nkeep = true")
    await auditing.complete()
    await auditing.look()
    objects = ObjectStore(auditing.settings)

    day = date.fromisoformat(auditing.paths()[0].parent.name)
    walk = Walk(objects, PREFIX)
    assert await sweep(objects, walk, date.fromordinal(day.toordinal() + 30)) == 0
    assert await sweep(objects, walk, date.fromordinal(day.toordinal() + 31)) == 1
    assert auditing.paths() == []


async def test_expired_records_are_deleted_while_the_others_are_still_listed(
    redis, tmp_path, monkeypatch
):
    monkeypatch.setattr(objects_module, "DELETED_AT_ONCE", 2)
    objects = ObjectStore(Settings(data_dir=str(tmp_path)))
    for number in range(5):
        await objects.put(f"audit/{'0' * 40}/1/2020-01-01/gen_{number}.json", b"{}")
    listed = objects.list(PREFIX)

    async def breaks(prefix=""):
        for _ in range(4):
            yield await anext(listed)
        raise FilesUnavailable("no disk")

    with monkeypatch.context() as broken:
        broken.setattr(objects, "list", breaks)
        with pytest.raises(FilesUnavailable):
            await sweep(objects, Walk(objects, PREFIX), date(2024, 1, 1))

    assert len([info async for info in objects.list(PREFIX)]) == 1
    assert await sweep(objects, Walk(objects, PREFIX), date(2024, 1, 1)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "audit/readme.txt",
        "audit/abc/30/2020-01-01/x.json",
        f"audit/{'0' * 40}/30/2020-13-41/x.json",
    ],
)
def test_other_files_below_the_folder_never_expire(name):
    assert not is_expired(name, date(2400, 1, 1))


def test_an_audit_needs_the_settlement_of_usage():
    services = Services(Settings(usage_days=0), None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="TAILRACE_USAGE_DAYS"):
        build_stage(StageTable(stage="audit"), Model(name="m"), services)


def test_a_text_in_many_pieces_is_one_event_of_the_record():
    log = [(EventId(1, seq), encode(Token("x", agent="a" * (seq > 3)))) for seq in range(1, 6)]

    assert [(str(i), e.text) for i, e in _joined(log)] == [("1-3", "xxx"), ("1-5", "xx")]
