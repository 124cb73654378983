"""The npm package by itself: its rules, its modules and its hooks."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support import npm
from tests.support.browser import Browser, PageServer
from tests.support.demo import demo_body, expected_text
from tests.support.processes import Deployment

HTML = """<!doctype html><meta charset="utf-8"><title>hooks</title>
<body><script>window.options = %s;</script><script>%s</script></body>"""
ADAPTERS = ["ag-ui", "ai-sdk", "audio", "batch", "deep-chat", "openai", "produce", "react", "tabs"]
TSC = npm.PACKAGE / "node_modules" / ".bin" / "tsc"
PROGRAM = """
import { Tailrace, type TailraceEvent } from 'tailrace'
import { resumingFetch } from 'tailrace/openai'
export const text = (event: TailraceEvent): string => (event.type === 'token' ? event.text : '')
export const made = [Tailrace, resumingFetch]
"""
ITEMS = """[...document.querySelectorAll("li")].map((li) => [li.title, li.dataset.status,
  li.textContent])"""


def test_the_rules_hold_without_a_network() -> None:
    assert "# fail 0" in npm.run_package_tests()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has the package as npm would install it, and its peer React."""
    project = tmp_path_factory.mktemp("project")
    modules = project / "node_modules"
    modules.mkdir()
    npm.built()
    options = ["--silent", "--ignore-scripts", "--pack-destination", str(project)]
    (archive,) = npm.run(npm.PACKAGE, "pack", *options).split()
    with tarfile.open(project / archive) as tar:
        tar.extractall(modules, filter="data")
    (modules / "package").rename(modules / "tailrace")
    (modules / "react").symlink_to(npm.installed() / "react")
    return project


def test_every_entry_can_be_imported_and_required(packed: Path) -> None:
    entries = ["tailrace", *(f"tailrace/{name}" for name in ADAPTERS)]
    imports = "".join(f"await import('{name}');" for name in entries)
    requires = "".join(f"require('{name}');" for name in entries)
    for program in (["--input-type=module", "-e", imports], ["-e", requires]):
        argv = [npm.tool("node"), *program]
        done = subprocess.run(argv, cwd=packed, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_package_holds_only_what_it_needs(packed: Path) -> None:
    package = packed / "node_modules" / "tailrace"
    assert {each.name for each in package.iterdir()} == {"dist", "package.json", "README.md"}
    described = json.loads((package / "package.json").read_text())
    assert "dependencies" not in described
    assert described["peerDependenciesMeta"]["react"]["optional"] is True
    # For TypeScript's resolution of before `exports`.
    entries = {name.removeprefix("./") for name in described["exports"]} - {".", "package.json"}
    assert {*described["typesVersions"]["*"]} == entries


@pytest.mark.parametrize("name", ["program.mts", "program.cts"])
def test_both_kinds_of_modules_find_the_types(packed: Path, name: str) -> None:
    (packed / name).write_text(PROGRAM)
    argv = ["--ignoreConfig", "--strict", "--noEmit", "--skipLibCheck", "--types", ""]
    done = subprocess.run(
        [TSC, *argv, "--module", "nodenext", "--target", "es2022", "--lib", "es2023,dom", name],
        cwd=packed, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_types_fit_the_packages_that_the_adapters_serve() -> None:
    npm.built()
    npm.installed()
    done = subprocess.run([TSC, "-p", "."], cwd=npm.CLIENTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_lock_file_names_no_index() -> None:
    lock = json.loads((npm.PACKAGE / "package-lock.json").read_text())

    assert [name for name, each in lock["packages"].items() if "resolved" in each] == []


async def test_the_hooks_show_an_answer_and_the_answers_of_other_tabs(
    deployment: Deployment, browser: Browser, pages: PageServer
) -> None:
    """A page of another origin, so the heartbeat's header and the token's path pass CORS."""
    npm.built()
    url, session = deployment.urls[0], "hooks"
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
    assert await other.evaluate(ITEMS) == [["tell me", "completed", text]]
    assert await page.evaluate("window.sessionError ?? null") is None
    for each in (page, other):
        assert await each.errors() == []
        await each.close()
