"""Says what an error of a model server means, by its names and, where it has none, its sentence.

Servers name the same error differently, and many give no name at all. Clients act on the meaning:
they shorten their history after `too_long`. Pure; knows no HTTP status. Sources: the vendors' pages
on errors, and the code of vLLM, llama.cpp and Ollama.
"""

from __future__ import annotations

import re
from typing import Literal

from workers.backends.reading.error_body import ErrorBody

# too_long: prompt and answer do not fit into the model's context.
# policy: the vendor does not answer such a request, for its content or its country.
# quota: the account has no money or no quota, and waiting a little does not help.
# key: the credentials of this system are invalid, or may not use the model.
# missing: no such model. invalid: another fault of the request.
Meaning = Literal["too_long", "policy", "quota", "key", "missing", "invalid"]

# In the order in which they win, if the names of one error have several meanings.
NAMES: dict[Meaning, frozenset[str]] = {
    "too_long": frozenset(
        (
            "context_length_exceeded",
            "context_window_exceeded",
            "contextwindowexceedederror",
            "exceed_context_size_error",
            "model_context_window_exceeded",
            "1261",  # Zhipu
        )
    ),
    "policy": frozenset(
        (
            "content_filter",
            "content_policy_violation",
            "contentpolicyviolationerror",
            "cyber_policy",
            "data_inspection_failed",
            "datainspectionfailed",
            "moderation_blocked",
            "prohibited_content",
            "responsibleaipolicyviolation",
            "sensitive_words_detected",
            "unsupported_country",
            "unsupported_country_region_territory",
            "1300",  # Zhipu
            "1301",
            "base_resp 1026",  # MiniMax: the prompt; the answer
            "base_resp 1027",
        )
    ),
    "quota": frozenset(
        (
            "arrearage",
            "billing_error",
            "billing_hard_limit_reached",
            "billing_not_active",
            "exceeded_current_quota_error",
            "insufficient_balance",
            "insufficient_credits",
            "insufficient_quota",
            "insufficient_user_quota",
            "usage_limit_reached",
            "usage_not_included",
            "1113",  # Zhipu: no money; a day's, a plan's, a week's limit
            "1304",
            "1308",
            "1309",
            "1310",
            "base_resp 1008",  # MiniMax: no money; a plan's limit
            "base_resp 2056",
        )
    ),
    "key": frozenset(
        (
            "access_denied",
            "access_terminated_error",
            "accessdenied",
            "account_deactivated",
            "api_key_invalid",
            "auth_error",
            "authentication_error",
            "authenticationerror",
            "incorrect_api_key_error",
            "invalid_api_key",
            "invalid_authentication_error",
            "invalid_organization",
            "invalidapikey",
            "permission_denied",
            "permission_error",
            "permissiondeniederror",
            "token_expired",
            "unauthenticated",
            "unauthorized",
            "base_resp 1004",
            "base_resp 2049",
        )
    ),
    "missing": frozenset(
        (
            "model_not_found",
            "modelnotfound",
            "not_found",
            "not_found_error",
            "notfounderror",
            "1211",  # Zhipu
        )
    ),
    "invalid": frozenset(
        (
            "badrequesterror",
            "failed_precondition",
            "invalid_argument",
            "invalid_parameter",
            "invalid_parameter_error",
            "invalid_prompt",
            "invalid_request_error",
            "invalid_value",
            "invalidparameter",
            "missing_required_parameter",
            "out_of_range",
            "request_too_large",
            "unknown_parameter",
            "unprocessableentityerror",
            "unsupported_parameter",
            "unsupported_value",
            "validation_error",
            "1210",  # Zhipu: a parameter is invalid, unknown, missing, out of range, excluded
            "1212",
            "1213",
            "1214",
            "1215",
            "base_resp 2013",  # MiniMax
        )
    ),
}

# "too many tokens" is not among these sentences: a rate limit has the same words.
_TOO_LONG = re.compile(
    r"maximum (?:context|model|prompt|input) length"  # OpenAI, vLLM, OpenRouter, Mistral, xAI
    r"|context[ _](?:length|window)[ _](?:is )?exceeded"
    r"|exceeds? (?:the |model's |the model's )?(?:available |maximum |max )?"
    r"context (?:size|length|window)"  # llama.cpp, Ollama, OpenAI's Responses
    r"|context size has been exceeded"  # LM Studio
    r"|exceeded max context length"  # Ollama
    r"|greater than the context length"  # LM Studio
    r"|longer than the (?:model's )?context length"  # SGLang, Together
    r"|context length is only \d"  # vLLM since 2026
    r"|context window exceeds limit"  # MiniMax
    r"|exceed context window of \d"  # llama-cpp-python
    r"|tokens? exceeds? n_ctx"
    r"|exceeded model token limit"  # Moonshot
    r"|input token count\b.{0,40}\bexceeds the maximum"  # Gemini
    r"|input tokens exceed the configured limit"  # OpenAI
    r"|prompt token count of \d+ exceeds the limit"  # GitHub Copilot
    r"|prompt (?:is )?too long"  # Anthropic, Ollama
    r"|input is too long for requested model"  # Bedrock
    r"|range of input length should be"  # DashScope
    r"|`inputs` (?:tokens \+ `max_new_tokens` must be|must have less than \d+ tokens)"  # TGI
    r"|maximum allowed input length"  # OpenRouter
    r"|max_tokens must be at least 1, got -\d"  # vLLM: no room is left for an answer
    r"|reduce the length of the (?:messages|prompt|input)"  # Groq, vLLM
    r"|prompt 超长",  # Zhipu
    re.IGNORECASE,
)
_POLICY = re.compile(
    r"content (?:management )?polic|content filter|inappropriate content"
    r"|usage (?:guidelines|polic)|moderation|\bflagged\b",
    re.IGNORECASE,
)
_KEY = re.compile(
    r"\bapi[ _-]key\b.{0,20}\b(?:not valid|invalid|incorrect)|invalid api[ _-]key", re.I
)


def meaning_of(error: ErrorBody) -> Meaning | None:
    """Return the meaning that the names of an error have; None: none of them is known."""
    for meaning, names in NAMES.items():
        if not names.isdisjoint(error.names):
            return meaning
    return None


def says_too_long(message: str) -> bool:
    """Whether a sentence says that prompt and answer do not fit into the model's context."""
    return _TOO_LONG.search(message) is not None


def says_policy(message: str) -> bool:
    """Whether the sentence of a 403 is about the content of the request and not about a key."""
    return _POLICY.search(message) is not None


def says_key(message: str) -> bool:
    """Whether a sentence says that the key is invalid."""
    return _KEY.search(message) is not None
