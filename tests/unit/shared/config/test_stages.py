"""The member `stages` of a model: each mistake is one line that names its place and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.config.models import load_models, parse_models
from shared.config.settings import Settings
from shared.config.stages import STAGES, STAGES_MAX
from shared.errors import ConfigurationError
from workers.stages import Stages
from workers.stages.contract import Services

EXAMPLE = Path(__file__).parents[4] / "models.example.toml"
SERVICES = Services(Settings(), None)  # type: ignore[arg-type]


def models_of(*stages: Any, folder: Path = Path()) -> Any:
    tables = {"models": {"chat": {"backend": "demo", "stages": list(stages)}}}
    return parse_models(tables, str(folder / "models.toml"))


def build(*stages: Any, folder: Path = Path()) -> None:
    Stages(models_of(*stages, folder=folder), SERVICES)


@pytest.mark.parametrize(
    ("stage", "why"),
    [
        ("filter", "must be a table with a member stage"),
        ({"words": ["a"]}, "must be a table with a member stage"),
        ({"stage": "fliter"}, r"\.stage: must be one of .*filter.*, or a class as package.module"),
        ({"stage": "filter"}, "filter needs at least one of words, words_file, patterns"),
        ({"stage": "filter", "word": ["a"]}, "unknown member 'word'; known: action, .*words"),
        ({"stage": "filter", "words": "a"}, r"\.words: must be a list of 1 to 20000 strings"),
        (
            {"stage": "filter", "words": ["a", " "]},
            r"\.words\[1\]: must be a string, and not empty",
        ),
        ({"stage": "filter", "words": ["a" * 129]}, r"\.words\[0\]: at most 128 characters"),
        ({"stage": "filter", "words": ["a"], "mask": "xx"}, r"\.mask: must be one visible"),
        ({"stage": "filter", "words": ["a"], "mask": "x"}, r"\.mask: must be neither a letter"),
        ({"stage": "filter", "words": ["a"], "action": "drop"}, "must be one of mask, stop"),
        ({"stage": "filter", "words": ["a"], "channels": ["all"]}, "must be a list of answer,"),
        ({"stage": "filter", "words": ["a"], "whole_words": 1}, "must be true or false"),
        ({"stage": "limits"}, "limits needs at least one of max_tokens"),
        ({"stage": "limits", "max_tokens": 0}, r"\.max_tokens: must be a whole number from 1"),
        ({"stage": "limits", "max_seconds": True}, r"\.max_seconds: must be a number from 0.1"),
        ({"stage": "usage", "input_price": -1}, r"\.input_price: must be a number from 0"),
        ({"stage": "usage", "currency": ""}, "must be a name of 1 to 16 characters"),
        ({"stage": "audit", "days": 0}, r"\.days: must be a whole number from 1 to 36500"),
        ({"stage": "cache", "ttl_s": "1h"}, r"\.ttl_s: must be a number from 1"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(stage: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"models\.chat\.stages\[0\].*{why}") as found:
        models_of(stage)

    assert "\n" not in str(found.value)


def test_stages_are_a_list_of_bounded_length_and_most_stand_in_it_once() -> None:
    with pytest.raises(ConfigurationError, match=r"stages: must be a list of tables"):
        parse_models({"models": {"m": {"backend": "demo", "stages": {}}}}, "models.toml")
    with pytest.raises(ConfigurationError, match=f"at most {STAGES_MAX} stages"):
        models_of(*[{"stage": "filter", "words": ["a"]}] * (STAGES_MAX + 1))
    with pytest.raises(ConfigurationError, match=r"stages\[1\]: a model has cache once"):
        models_of({"stage": "cache"}, {"stage": "cache"})
    assert len(models_of(*[{"stage": "filter", "words": ["a"]}] * 2)["chat"].stages) == 2


@pytest.mark.parametrize(
    ("member", "why"),
    [
        ({"words": ["f*ck"]}, r"words\[0\]: has the mask character \*"),
        ({"words": ["a", "\u200b\u200d"]}, r"words\[1\]: has no visible character"),
        ({"words_file": "absent.txt"}, "words_file: .*absent.txt"),
        ({"words_file": "empty.txt"}, "empty.txt: has no words"),
        ({"words_file": "bad.txt"}, "words_file: line 2: has the mask character"),
        ({"patterns": ["(a"]}, r"patterns\[0\]: '\(a' lacks a `\)`"),
        ({"patterns": ["a", "(?=b)"]}, r"patterns\[1\]: .* group \(\?…\), which is not supported"),
        ({"patterns": ["^a"]}, "an answer that still grows has no beginning or end"),
        ({"patterns": ["a*?"]}, "lazy, possessive or second quantifier"),
        ({"patterns": ["a*"]}, "matches the empty text"),
        ({"patterns": [r"\1"]}, r"has \\1, which is not supported"),
        ({"patterns": ["[z-a]"]}, "range whose borders are no two characters in order"),
        ({"patterns": ["a{3,2}"]}, "the larger one first"),
        ({"patterns": ["(((a{999}){999}){9}){9}"]}, "larger than 20000 places"),
    ],
)
def test_a_worker_refuses_words_and_patterns_that_it_cannot_use(
    member: Any, why: str, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    (tmp_path / "bad.txt").write_text("good\nb*d\n")
    with pytest.raises(ConfigurationError, match=why) as found:
        build({"stage": "filter"} | member, folder=tmp_path)

    assert "\n" not in str(found.value)


def test_a_file_of_words_stands_beside_the_models_file(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\ufeff# a comment\nsecret \n\ncafé\n", encoding="utf-8")
    build({"stage": "filter", "words_file": "words.txt"}, folder=tmp_path)


def test_a_route_and_the_models_of_a_list_have_stages() -> None:
    stages = [{"stage": "filter", "words": ["a"]}]
    models = parse_models(
        {
            "models": {
                "one": {"backend": "demo"},
                "both": {"route": ["one"], "stages": stages},
                "*": {"backend": "ollama", "base_url": "http://127.0.0.1:1", "stages": stages},
            }
        },
        "models.toml",
    )
    models.learn(["listed"])
    built = Stages(models, SERVICES)

    assert models["both"].stages[0].stage == models["listed"].stages[0].stage == "filter"
    assert built.pricing_of(models["listed"]) is None


def test_the_example_shows_every_stage() -> None:
    models = load_models(str(EXAMPLE))
    shown = {table.stage for model in models.values() for table in model.stages}

    # `documents` needs a package that not every installation has, so it stands in a comment.
    assert shown == set(STAGES) - {"documents"}
    assert '# stage = "documents"' in EXAMPLE.read_text()
    Stages(models, SERVICES)
