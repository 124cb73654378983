"""The cells of CSV files: text that a spreadsheet would take for a formula."""

from __future__ import annotations

from typing import Any

import pytest

from shared.text.csv_cell import csv_cell


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"), ("\r=1", "'\r=1"), ("alice", "alice"), ("a=1", "a=1"), ("", ""),
        (None, ""), (-1, -1), (0, 0),
    ],
)  # fmt: skip
def test_only_a_text_that_looks_like_a_formula_gets_an_apostrophe(value: Any, cell: Any) -> None:
    assert csv_cell(value) == cell
