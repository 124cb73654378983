"""The npm package by itself: its rules, its modules and its hooks."""

from __future__ import annotations

import json
import subprocess

from tests.support import npm
from tests.support.browser import Browser, PageServer
from tests.support.demo import demo_body, expected_text
from tests.support.processes import Cluster

HTML = """<!doctype html><meta charset="utf-8"><title>hooks</title>
<body><script>window.options = %s;</script><script>%s</script></body>"""
ITEMS = """[...document.querySelectorAll("li")].map((li) => [li.title, li.dataset.status,
  li.textContent.length])"""


def test_the_rules_hold_without_a_network() -> None:
    assert "# fail 0" in npm.run_package_tests()


def test_every_entry_can_be_imported_and_required() -> None:
    """`react` is not installed beside the package, so its entry is only read."""
    dist = npm.built()
    names = ["index", "ai-sdk", "openai", "deep-chat"]
    imports = "".join(f"await import('{dist}/{name}.js');" for name in names)
    requires = "".join(f"require('{dist}/{name}.cjs');" for name in names)
    for program in (["--input-type=module", "-e", imports], ["-e", requires]):
        done = subprocess.run([npm.tool("node"), *program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_lock_file_names_no_index() -> None:
    lock = json.loads((npm.PACKAGE / "package-lock.json").read_text())

    assert [name for name, each in lock["packages"].items() if "resolved" in each] == []


async def test_the_hooks_show_an_answer_and_the_answers_of_other_tabs(
    cluster: Cluster, browser: Browser, pages: PageServer
) -> None:
    """A page of another origin, so the heartbeat's header and the token's path pass CORS."""
    npm.built()
    url, session = cluster.urls[0], "hooks"
    options = json.dumps({"url": url, "session": session})
    pages.pages["/hooks"] = HTML % (options, npm.bundle("tailrace-react.mjs"))
    page = await browser.open(pages.origin + "/hooks")
    other = await browser.open(pages.origin + "/hooks")
    for each in (page, other):
        await each.until("window.one", "the hooks")
    body = {**demo_body(40, 40), "session": session}
    generation_id = await page.evaluate(f"one.generate({json.dumps(body)})")
    await page.until("one.status === 'completed'", "the end")

    text = expected_text(body, generation_id)
    assert await page.evaluate("document.querySelector('main').textContent") == text
    await other.until("document.querySelector('li')?.dataset.status === 'completed'", "the other")
    assert await other.evaluate(ITEMS) == [["tell me", "completed", len(text)]]
    assert await page.evaluate("window.sessionError ?? null") is None
    for each in (page, other):
        assert await each.errors() == []
        await each.close()
