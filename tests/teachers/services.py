"""Servers with the protocols of Anthropic, Google and OpenAI, enough for one question and its reply."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from aiohttp import web

SAID = "Because it is so."
THOUGHT = "Hmm, what could it be?"
PROMPT, CACHED, COMPLETION = 14, 4, 20


@dataclass(frozen=True)
class Service:
    """How one service is asked and how it answers.

    Attributes:
        model: as in the configuration.
        variable: of the environment, with the key.
        header: in which the key is sent.
    """

    model: str
    variable: str
    header: str

    @property
    def name(self) -> str:
        return self.model.partition("/")[0]

    def reply(self, text: str = SAID, stop: str = "") -> Any:
        match self.name:
            case "anthropic":
                parts = [
                    {"type": "thinking", "thinking": THOUGHT, "signature": "c2ln"},
                    {"type": "text", "text": text},
                ]
                usage = {
                    "input_tokens": PROMPT - CACHED, "output_tokens": COMPLETION,
                    "cache_read_input_tokens": CACHED, "cache_creation_input_tokens": 0,
                }  # fmt: skip
                return {
                    "id": "m", "type": "message", "role": "assistant", "model": "claude", "content": parts,
                    "stop_reason": stop or "end_turn", "usage": usage,
                }  # fmt: skip
            case "gemini":
                parts = [{"text": THOUGHT, "thought": True}, {"text": text}]
                usage = {
                    "promptTokenCount": PROMPT, "cachedContentTokenCount": CACHED, "thoughtsTokenCount": 7,
                    "candidatesTokenCount": COMPLETION - 7, "totalTokenCount": PROMPT + COMPLETION,
                }  # fmt: skip
                candidate = {"content": {"role": "model", "parts": parts}, "finishReason": stop or "STOP", "index": 0}
                return {"candidates": [candidate], "usageMetadata": usage}
            case "cohere_chat":
                parts = [{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": text}]
                tokens = {"input_tokens": PROMPT, "output_tokens": COMPLETION}
                return {
                    "id": "c", "message": {"role": "assistant", "content": parts}, "finish_reason": stop or "COMPLETE",
                    "usage": {"tokens": tokens, "billed_units": tokens},
                }  # fmt: skip
        message = {"role": "assistant", "content": text, "reasoning_content": THOUGHT}
        usage = {
            "prompt_tokens": PROMPT, "completion_tokens": COMPLETION, "total_tokens": PROMPT + COMPLETION,
            "prompt_tokens_details": {"cached_tokens": CACHED},
        }  # fmt: skip
        choice = {"index": 0, "message": message, "finish_reason": stop or "stop"}
        return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}

    def good(self, _body: dict[str, Any]) -> web.Response:
        return web.json_response(self.reply())

    def error(self, status: int, message: str, retry_after: str | None = None, **more: Any) -> Any:
        match self.name:
            case "anthropic":
                body: Any = {"type": "error", "error": {"type": "an_error", "message": message, **more}}
            case "gemini":
                body = {"error": {"code": status, "message": message, "status": "A_STATUS", **more}}
            case _:
                body = {"error": {"message": message, "type": "an_error", **more}}
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        return lambda _: web.Response(
            status=status, text=json.dumps(body), headers=headers, content_type="application/json"
        )


ANTHROPIC = Service("anthropic/claude-sonnet-4-5", "ANTHROPIC_API_KEY", "x-api-key")
GEMINI = Service("gemini/gemini-2.5-flash", "GEMINI_API_KEY", "x-goog-api-key")
OPENAI = Service("openai/gpt-4.1", "OPENAI_API_KEY", "Authorization")
MISTRAL = Service("mistral/mistral-small-latest", "MISTRAL_API_KEY", "Authorization")
COHERE = Service("cohere_chat/command-a", "COHERE_API_KEY", "Authorization")
"""litellm takes no connection of ours for it."""

SERVICES = (ANTHROPIC, GEMINI, OPENAI, MISTRAL)
