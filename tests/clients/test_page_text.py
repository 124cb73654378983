"""The text of an answer on the chat page: Markdown, hostile text, and a fast stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable

import pytest

from tests.support.browser import Browser
from tests.support.chat_page import ChatPage
from tests.support.parrot import Parrot
from tests.support.processes import Deployment

MODEL = '[models.parrot]\nbackend = "openai"\nbase_url = "{url}"\non_takeover = "restart"\n'
RICH = """# Title

A *b* **c** ~~d~~ `e` [f](https://example.org/).

| Name | Count |
|:-----|------:|
| log | 12 |

1. First
   - nested
2. Second

> Quote
> > inside

```python
def fold(): return "x"
```

Area $A = \\pi r^2$, or $5 and $6.

$$\\sum_{k=1}^n k$$

---

Later [defined][here].

[here]: https://example.org/defined
"""
FOUND = {
    "h3": "Title",
    "em": "b",
    "strong": "c",
    "s": "d",
    "p > code": "e",
    'a[href="https://example.org/"][rel*=noopener]': "f",
    "td.align-right": "12",
    "ol > li > ul > li": "nested",
    "blockquote blockquote": "inside",
    "pre[data-language=python] .hljs-keyword": "def",
    "hr": "",
    'a[href="https://example.org/defined"]': "defined",
}
# A script that runs sets `window.hit`. Each of these is a whole answer of a model.
HOSTILE = {
    "a script": "<script>window.hit = 1</script>",
    "a picture with a handler": "<img src=x onerror='window.hit = 1'>",
    "SVG": "<svg onload='window.hit = 1'><script>window.hit = 1</script></svg>",
    "SVG in MathML": "<math><mtext><table><mglyph><svg><mtext><style><img src onerror=hit=1>",
    "a frame": "<iframe srcdoc='<script>parent.hit = 1</script>'></iframe>",
    "a link to a script": "[a](javascript:window.hit=1) <javascript:window.hit=1>",
    "a link in disguise": "[a](java\tscript:window.hit=1) [b](&#106;avascript:window.hit=1)",
    "a link to data": "[a](data:text/html,<script>opener.hit=1</script>)",
    "a picture of SVG": "![a](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9ImFsZXJ0KDEpIi8+)",
    "a picture elsewhere": "![a](https://example.org/spy.png?said=secret)",
    "a reference": "[a]\n\n[a]: javascript:window.hit=1",
    "an attribute": '[a](https://example.org/"onmouseover="window.hit=1)',
    "a title": '[a](https://example.org "\\"><img src=x onerror=window.hit=1>")',
    "a language of code": '```"><img/src=x/onerror=window.hit=1>\nx\n```',
    "a formula with a link": "$\\href{javascript:hit=1}{a}$ $\\url{javascript:hit=1}$",
    "a formula with HTML": "$\\htmlData{x=1}{a} \\includegraphics{https://example.org/a.png}$",
    "a formula without an end": "$" + "\\def\\a{\\a\\a}\\a" + "$",
    "a table": "| a |\n|---|\n| <img src=x onerror=window.hit=1> |",
    "a style": "<style>body { display: none }</style><div style='position: fixed'>x</div>",
    "a form": "<form action='https://example.org'><input name=password></form>",
    "names of the page": "<a id=prompt name=prompt>x</a><img name=body id=send>",
    "an entity": "&lt;img src=x onerror=hit=1&gt; &#60;script&#62;window.hit=1&#60;/script&#62;",
}


@pytest.fixture(scope="module")
async def parrot() -> AsyncIterator[Parrot]:
    async with Parrot() as parrot:
        yield parrot


@pytest.fixture(scope="module")
async def url(parrot: Parrot) -> AsyncIterator[str]:
    models = MODEL.format(url=parrot.base_url)
    async with Deployment(api=1, workers=1, models=models) as deployment:
        yield deployment.urls[0]


async def test_markdown_is_rendered(browser: Browser, url: str, parrot: Parrot) -> None:
    parrot.says("rich", RICH, piece=3)
    chat = await ChatPage.open(browser, url)
    await chat.ask("rich")
    await chat.done()
    await chat.page.until(
        "document.querySelectorAll('.answer .math .katex').length === 2", "formulas"
    )
    await chat.page.until("document.querySelector('.answer .hljs-keyword')", "colours")

    for selector, text in FOUND.items():
        found = await chat.page.evaluate(
            f"document.querySelector({json.dumps('.answer ' + selector)})?.textContent.trim()"
        )
        assert found == text, selector
    assert "$5 and $6" in (await chat.answers())[0]
    await chat.close()


async def test_a_text_in_pieces_gives_the_same_page_as_the_whole_text(
    browser: Browser, url: str, parrot: Parrot
) -> None:
    """The page parses only the end of a growing text. After a reload it parses all at once."""
    markup = "probes.markup()"
    settled = "document.querySelectorAll('.answer .katex, .answer .hljs-keyword').length === 4"
    parrot.says("slowly", RICH, piece=1, per_s=400)
    chat = await ChatPage.open(browser, url + "/#slowly")
    await chat.ask("slowly")
    await chat.done()
    await chat.page.until(settled, "the end")
    grown = await chat.page.evaluate(markup)
    await chat.page.reload()
    await chat.done()
    await chat.page.until(settled, "the end")

    assert grown == await chat.page.evaluate(markup)
    await chat.close()


async def test_nothing_that_a_model_writes_becomes_a_script_or_a_request(
    browser: Browser, url: str, parrot: Parrot
) -> None:
    chat = await ChatPage.open(browser, url)
    problems = {}
    for name, text in HOSTILE.items():
        parrot.says(name, text)
        await chat.page.click("#new")
        await chat.ask(name)
        (answer,) = await chat.done()
        await chat.page.evaluate("probes.hover()")
        if odd := await chat.page.evaluate("probes.odd()"):
            problems[name] = odd
        assert answer.strip(), name
    fetched = await chat.page.evaluate(
        "performance.getEntriesByType('resource').map(({name}) => name)"
    )

    assert problems == {}
    assert await chat.page.evaluate("window.hit ?? null") is None
    assert await chat.page.evaluate("probes.blocked") == [], (
        "the sanitiser leaves nothing to the policy"
    )
    assert [each for each in fetched if not each.startswith((url, "data:", "blob:"))] == []
    await chat.close()


async def test_the_policy_stops_a_script_that_gets_past_the_sanitiser(
    browser: Browser, url: str
) -> None:
    chat = await ChatPage.open(browser, url)
    script = """const e = document.createElement('script'); e.append('window.hit = 1');
      document.body.append(e)"""
    handler = "document.body.setAttribute('onclick', 'window.hit = 1'); document.body.click()"
    markup = """(() => { try { document.body.innerHTML = '<b>x</b>'; return 'set' }
      catch { return 'refused' } })()"""
    for attack in (script, handler):
        await chat.page.evaluate(f"(() => {{ try {{ {attack} }} catch {{}} }})()")

    assert await chat.page.evaluate("window.hit ?? null") is None
    assert await chat.page.evaluate(markup) == "refused"
    assert (
        await chat.page.evaluate(
            "fetch('https://example.org/').then(() => 'sent', () => 'refused')"
        )
        == "refused"
    )
    await chat.page.close()


async def test_a_selection_stays_while_the_text_comes(
    browser: Browser, url: str, parrot: Parrot
) -> None:
    first = "The first paragraph is complete."
    rest = "\n\n".join(["", *(f"Paragraph {number} of **many** words." for number in range(40))])
    line = parrot.says("select", first + rest, hold_at=30)
    chat = await ChatPage.open(browser, url + "/#select")
    await chat.ask("select")
    await chat.shows("Paragraph 2")
    selected = await chat.page.evaluate("probes.select()")
    line.held.set()
    await chat.done()

    assert selected.startswith("first paragraph is complete.")
    assert await chat.page.evaluate("getSelection().toString()") == selected
    assert await chat.page.evaluate("probes.block.isConnected"), (
        "the block was patched, not replaced"
    )
    await chat.close()


async def test_a_fast_stream_writes_to_the_page_once_in_a_frame(
    browser: Browser, url: str, parrot: Parrot, record_property: Callable[[str, object], None]
) -> None:
    """1,000 tokens a second: between two frames the answer changes at most once."""
    tokens = 1_500
    text = "".join(
        f" token-{number}" + ("\n\n" if number % 50 == 49 else "") for number in range(tokens)
    )
    parrot.says("fast", text, piece=11, per_s=1_000)
    chat = await ChatPage.open(browser, url + "/#fast")
    await chat.page.evaluate("probes.watch()")
    await chat.ask("fast")
    (answer,) = await chat.done()
    frames = await chat.page.evaluate("probes.writes")
    record_property("writes", len(frames))
    record_property("long_tasks_ms", await chat.page.evaluate("probes.long"))

    assert " ".join(answer.split()) == " ".join(text.split())
    # The prompt, the state of the turn and the end are writes of their own.
    twice = len(frames) - len(set(frames))
    # A page that gets no frames for a while, on a busy machine, paints without them.
    assert twice <= max(5, len(frames) // 5), (
        f"{twice} of {len(frames)} writes shared a frame with another"
    )
    assert len(frames) < tokens / 2
    await chat.close()


CODE = "".join(f"x{number} = {number}\n" for number in range(40_000))
LINE = "word " * 60_000
LONG = {
    "code": (f"```python\n{CODE}```\n\nThat was **all**.", f"{CODE}\n\nThat was all."),
    "one line": (f"{LINE}\n\nThat was **all**.", f"{LINE}\n\nThat was all."),
    "a table": ("|a|b|\n|---|---|\n" + "|1|2|\n" * 9_000 + "\nThat was **all**.", ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", LONG)
async def test_a_block_of_any_length_leaves_the_page_usable(
    browser: Browser, url: str, parrot: Parrot, kind: str
) -> None:
    """It goes on as plain text; before, each frame parsed all of it again, for minutes."""
    said, shown = LONG[kind]
    parrot.says(kind, said, piece=2_000)
    chat = await ChatPage.open(browser, f"{url}/#long-{kind.replace(' ', '-')}")
    await chat.ask(kind)
    await chat.page.until("document.querySelector('.block:last-child strong')", "what follows it")
    (answer,) = await chat.done()

    if shown:
        assert " ".join(answer.split()) == " ".join(shown.split())
    longest = (
        "Math.max(...[...document.querySelectorAll('.piece')].map((e) => e.textContent.length))"
    )
    assert await chat.page.evaluate(longest) < 20_000
    if kind == "code":
        assert await chat.page.evaluate("!!document.querySelector('.copy-code')")
        await chat.page.reload()
        await chat.page.until("document.querySelector('.block:last-child strong')", "it again")
        assert await chat.answers() == [answer]
    await chat.close()


async def test_a_block_of_code_can_be_copied(browser: Browser, url: str, parrot: Parrot) -> None:
    parrot.says("code", "Try\n\n```sh\nls -l\n```\n")
    chat = await ChatPage.open(browser, url + "/#code")
    await chat.page.evaluate(
        "(navigator.clipboard.writeText = async (text) => { window.copied = text }, true)"
    )
    await chat.ask("code")
    await chat.done()
    await chat.page.click(".copy-code")
    await chat.page.until("window.copied", "the text")

    assert await chat.page.evaluate("window.copied") == "ls -l\n"
    await chat.page.click('[aria-label="Copy the answer"]')
    await chat.page.until("window.copied.startsWith('Try')", "the whole answer")
    await chat.close()
