"""axe-core in a page: what it finds that keeps people with a screen reader or poor sight out."""

from __future__ import annotations

from tests.support import npm
from tests.support.browser import Page

FOUND = """axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations
  .filter(({ impact }) => ["serious", "critical"].includes(impact))
  .flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) =>
    `${id}: ${html} ${failureSummary}`)))"""


async def serious(page: Page) -> list[str]:
    """Return the findings that axe-core calls serious or critical."""
    script = (npm.installed() / "axe-core" / "axe.min.js").read_text()
    await page.evaluate(f"(() => {{ {script} }})()")
    found: list[str] = await page.evaluate(FOUND)
    return found
