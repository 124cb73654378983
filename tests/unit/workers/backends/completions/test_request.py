"""Requests for the rest of a text: templates, members of `params`, continuation."""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec
import pytest

from shared.config.models import parse_models
from shared.errors import BackendError, ConfigurationError
from shared.log.request import Request
from workers.backends.completions.request import encode_body

QUESTION = [{"type": "text", "text": "How are"}, {"type": "text", "text": "you?"}]
CHAT = [
    {"role": "developer", "content": "Be short."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": QUESTION},
]


def body_of(
    messages: list[dict[str, Any]], prefix: str = "", members: str = "", **params: Any
) -> dict[str, Any]:
    table = f'[models.m]\nbackend = "completions"\nbase_url = "http://h/v1"\n{members}'
    model = parse_models(tomllib.loads(table), "models.toml")["m"]
    raw = encode_body(model, Request(messages, params), prefix)
    return msgspec.json.decode(raw)  # type: ignore[no-any-return]


def prompt_of(*args: Any, **kwargs: Any) -> str:
    return str(body_of(*args, **kwargs)["prompt"])


def test_a_prompt_is_sent_as_it_is() -> None:
    assert body_of([{"role": "user", "content": "Once upon"}]) == {
        "model": "m",
        "prompt": "Once upon",
        "max_tokens": 1024,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


TABLE = """
[models.m.template]
user = "Q: {content}"
assistant = "A: {content}"
answer = "A:"
separator = "|"
stop = ["Q:"]
"""


@pytest.mark.parametrize(
    ("members", "prompt", "stop"),
    [
        ("", "Be short.\n\nHi\n\nHello.\n\nHow are\nyou?", None),
        (
            'template = "roles"',
            "Be short.\n\nUser: Hi\n\nAssistant: Hello.\n\nUser: How are\nyou?\n\nAssistant:",
            ["\nUser:"],
        ),
        (
            'template = "chatml"',
            "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nHow are\nyou?<|im_end|>\n"
            "<|im_start|>assistant\n",
            ["<|im_end|>"],
        ),
        (TABLE, "Be short.|Q: Hi|A: Hello.|Q: How are\nyou?|A:", ["Q:"]),
    ],
    ids=["text", "roles", "chatml", "a table"],
)
def test_a_chat_is_rendered_by_its_template(
    members: str, prompt: str, stop: list[str] | None
) -> None:
    body = body_of(CHAT, members=members)

    assert (body["prompt"], body.get("stop")) == (prompt, stop)


@pytest.mark.parametrize("template", ["text", "roles", "chatml", "llama3"])
def test_a_continuation_is_the_same_prompt_with_what_was_said(template: str) -> None:
    members = f'template = "{template}"'

    assert prompt_of(CHAT, " I am", members) == prompt_of(CHAT, "", members) + " I am"


def test_an_answer_that_the_client_has_begun_is_continued() -> None:
    chat = [*CHAT, {"role": "assistant", "content": "I", "prefix": True}]

    assert prompt_of(chat, " am", 'template = "roles"').endswith("\n\nAssistant:I am")


def test_the_text_of_a_message_is_no_template() -> None:
    assert prompt_of([{"role": "user", "content": "{content}{user}"}]) == "{content}{user}"


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"max_completion_tokens": 3, "max_tokens": 4}, {"max_tokens": 3}),
        ({"stop": "x"}, {"stop": ["\nUser:", "x"]}),
        ({"stop": ["x", "y"]}, {"stop": ["\nUser:", "x", "y"]}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": 3}),
        ({"logprobs": True}, {"logprobs": 1}),
        ({"logprobs": False}, {}),
        ({"logprobs": 5}, {"logprobs": 5}),
        ({"tools": [1], "tool_choice": "none", "reasoning_effort": "low"}, {}),
        ({"guided_regex": "a*", "prompt": "mine", "n": 2}, {"guided_regex": "a*"}),
    ],
    ids=str,
)
def test_members_of_params_are_translated(params: dict[str, Any], expected: dict[str, Any]) -> None:
    usual = body_of(CHAT, members='template = "roles"')

    assert body_of(CHAT, members='template = "roles"', **params) == usual | expected


@pytest.mark.parametrize(
    ("message", "params", "words"),
    [
        ({"role": "tool", "content": "7"}, {}, "messages[0]: this model continues a text"),
        ({"role": "user", "content": "a"}, {"tools": [{}]}, "calls no tools"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]},
            {},
            "messages[0].content[0]: this model continues a text and takes no pictures",
        ),
    ],
    ids=["a result", "tools", "a picture"],
)
def test_what_is_no_text_is_refused_and_said(
    message: dict[str, Any], params: dict[str, Any], words: str
) -> None:
    with pytest.raises(BackendError, match=r".") as caught:
        body_of([message], **params)

    assert (caught.value.code, caught.value.retryable) == ("upstream_refused", False)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ('template = "alpaca"', "models.m.template: must be one of text, roles, chatml, llama3"),
        ('template = {users = "x"}', "models.m.template: unknown member 'users'"),
        ('template = {user = "x"}', "models.m.template.user: must have {content} once"),
        ("template = {answer = 3}", "models.m.template.answer: must be a string"),
        ('template = {stop = [""]}', "models.m.template.stop: must be a list"),
        ("max_tokens = 0", "models.m.max_tokens: must be a whole number from 1"),
        ("max_tokens = true", "models.m.max_tokens: must be a whole number from 1"),
        ('shape = "x"', "models.m: unknown member 'shape'"),
        ('continue_style = "trailing"', "models.m.continue_style: must be one of exact"),
    ],
)
def test_a_mistake_in_the_models_file_is_named(members: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        body_of([], members=members)

    assert words in str(caught.value)
