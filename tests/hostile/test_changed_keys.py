"""Keys that change while nodes run: files of API keys and of public keys are read again."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.demo import demo_body
from tests.support.processes import Deployment
from tests.support.raw_client import RawClient
from tests.support.tokens import SECRET, hmac_token, jwk, signed_token
from tests.support.wait import until

ALICE, BOB = "key-of-alice-0123456789", "key-of-bob-0123456789"
LONG_AGO = 1_000_000_000
CHANGE_S = 15.0  # a loaded machine; two seconds are promised


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def key_set(*kids: str) -> str:
    return json.dumps({"keys": [jwk("ES256", kid) for kid in kids]})


async def test_changed_files_of_keys_need_no_restart_and_broken_ones_change_nothing(
    own_deployment: type[Deployment], tmp_path: Path
) -> None:
    keys, public = tmp_path / "keys", tmp_path / "public.json"
    keys.write_text(f"{ALICE}:alice\n")
    public.write_text(key_set("one"))
    settings = {"api_keys": str(keys), "jwt_jwks": str(public), "log": "json"}
    async with own_deployment(api=1, workers=1, jobs=1, settings=settings) as deployment:
        async with RawClient(deployment.urls[0]) as api:

            async def status(credential: str) -> int:
                headers = {"Authorization": f"Bearer {credential}"}
                return (await api.get("/v1/models", headers=headers)).status

            async def is_accepted(credential: str) -> bool:
                return await status(credential) == 200

            async def degraded() -> list[str]:
                answer = await api.get("/readyz")
                assert answer.status == 200, answer.body
                return list(answer.json().get("degraded", []))

            first, second = signed_token("ES256", "one"), signed_token("ES256", "two")
            assert [await status(each) for each in (ALICE, BOB, first, second)] == [
                200, 401, 200, 401,
            ]  # fmt: skip

            replace(keys, f"{BOB}:bob\n")
            replace(public, key_set("two"))
            await until(lambda: is_accepted(BOB), CHANGE_S, "the new API key")
            await until(lambda: is_accepted(second), CHANGE_S, "the new public key")
            assert [await status(each) for each in (ALICE, first)] == [401, 401]

            replace(keys, "half of an ent")
            replace(public, "{")

            async def are_both_named() -> bool:
                return await degraded() == ["api_keys", "token_keys"]

            await until(are_both_named, CHANGE_S, "the node that says it is degraded")
            assert [await status(each) for each in (BOB, second)] == [200, 200]

            replace(keys, f"{ALICE}:alice\n")
            replace(public, key_set("one", "two"))

            async def is_none_named() -> bool:
                return await degraded() == []

            await until(is_none_named, CHANGE_S, "the node that is not degraded any more")
            assert [await status(each) for each in (ALICE, first, second)] == [200, 200, 200]
        printed = "".join(role.output.read_text() for role in deployment.roles)
        assert '"event": "api keys read again"' in printed
        assert not any(secret in printed for secret in (ALICE, BOB, first, second, "half of an"))


async def test_work_planned_with_a_token_or_for_a_user_starts_without_a_key_of_the_owner(
    own_deployment: type[Deployment],
) -> None:
    settings = {"api_keys": f"{ALICE}:backend:act", "jwt_secret": SECRET}
    async with own_deployment(api=1, workers=1, jobs=1, settings=settings) as deployment:
        async with RawClient(deployment.urls[0]) as api:
            tom = {"Authorization": f"Bearer {hmac_token(sub='tom')}"}
            ann = {"Authorization": f"Bearer {ALICE}", "X-On-Behalf-Of": "ann"}
            for headers in (tom, ann):
                body = demo_body(2, 0) | {"run_at": LONG_AGO}
                planned = (await api.post(body, headers=headers)).json()
                path = f"/v1/schedules/{planned['id']}"

                async def has_fired(path: str = path, headers: dict[str, str] = headers) -> bool:
                    return bool((await api.get(path, headers=headers)).json()["last_id"])

                await until(has_fired, CHANGE_S, "the schedule of an owner without a key")
