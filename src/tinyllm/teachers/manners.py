"""Which forms of request an endpoint accepts. This is learnt from its errors and kept in the store."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tinyllm.teachers.base import Request

_TOP_LOGPROBS = 20
"""The most log-probabilities of a first token that OpenAI and vLLM return."""

LENGTHS = ("max_tokens", "max_completion_tokens")
SAMPLING = ("temperature", "top_p", "seed", "stop")
"""Parameters that may be left out of a request. The length may be renamed, but never left out."""

WITHOUT_THOUGHTS: tuple[Mapping[str, Any], ...] = (
    {},
    {"chat_template_kwargs": {"enable_thinking": False}},  # vLLM, SGLang, llama.cpp
    {"reasoning_effort": "none"},  # OpenAI, Ollama, Gemini
)
"""Fields of a request that keep a model from thinking before it answers, in the order in which they are tried."""


class SentForm(NamedTuple):
    """The part of the manners that can change the reply.

    Attributes:
        dropped: sampling parameters that the endpoint refuses.
        most_tokens: the longest reply that the endpoint allows; None: unknown.
        system: whether it accepts a system message; otherwise its text is put before the first user message.
        fewest_tokens: the smallest length that the endpoint takes; None: unknown.
    """

    dropped: tuple[str, ...] = ()
    most_tokens: int | None = None
    system: bool = True
    fewest_tokens: int | None = None

    def applied_to(
        self, request: Request, kept: Collection[str] = (), omitted: Collection[str] = (), least_tokens: int = 0
    ) -> Request:
        """Return a request in this form.

        Args:
            kept: parameters that the user has set; they are always sent.
            omitted: parameters that the user does not want to be sent.
            least_tokens: the length is never reduced below this.
        """
        if self == _AS_WANTED and not omitted:  # fast path: nearly all requests
            return request
        dropped = {*(set(self.dropped) - set(kept)), *omitted}
        sampling, prompt = request.sampling, request.prompt
        if dropped:
            nothing: dict[str, Any] = {"temperature": None, "top_p": None, "seed": None, "stop": ()}
            sampling = replace(sampling, **{name: nothing[name] for name in dropped if name in nothing})
        if self.most_tokens is not None and sampling.max_tokens > (most := max(self.most_tokens, least_tokens)):
            sampling = replace(sampling, max_tokens=most)
        if self.fewest_tokens is not None and sampling.max_tokens < self.fewest_tokens:
            sampling = replace(sampling, max_tokens=self.fewest_tokens)
        if not self.system and prompt.messages and prompt.messages[0].role == "system":
            system, first, *rest = prompt.messages
            joined = replace(first, content=f"{system.content}\n\n{first.content}")
            prompt = replace(prompt, messages=(joined, *rest))
        if sampling is request.sampling and prompt is request.prompt:
            return request
        return replace(request, sampling=sampling, prompt=prompt)


_AS_WANTED = SentForm()


@dataclass(frozen=True, slots=True)
class Manners:
    """What one model at one endpoint accepts.

    Attributes:
        form: the current form of requests.
        earlier: forms in which it has replied before; such replies are not requested again.
        length_field: its name for the longest reply.
        stream: whether it answers only with a stream.
        stream_usage: whether it accepts `stream_options`.
        thinks: whether a thought has once used up all tokens, so that it needs more.
        thoughts_off: which of `WITHOUT_THOUGHTS` is sent if the first token has to be the answer.
        top_logprobs: the number of first tokens whose log-probabilities are requested.
        worked: whether it has ever replied. After that, an unknown error concerns only the one prompt.
    """

    form: SentForm = SentForm()
    earlier: tuple[SentForm, ...] = ()
    length_field: str = "max_tokens"
    stream: bool = False
    stream_usage: bool = True
    thinks: bool = False
    thoughts_off: int = 0
    worked: bool = False
    top_logprobs: int = _TOP_LOGPROBS

    def dump(self) -> str:
        """Return it as JSON, for the store."""
        forms = {"form": self.form._asdict(), "earlier": [form._asdict() for form in self.earlier]}
        return json.dumps(asdict(self) | forms)

    @classmethod
    def load(cls, text: str) -> Manners:
        """Read what `dump` wrote. Unknown keys are ignored."""
        found = {name: value for name, value in json.loads(text).items() if name in {f.name for f in fields(cls)}}
        form, *earlier = (_form(row) for row in (found.pop("form", {}), *found.pop("earlier", ())))
        return cls(form, tuple(earlier), **found)

    def without(self, names: Sequence[str], written: Collection[str], limit: int | None = None) -> Manners | None:
        """Return manners that change the first refused part that may be changed; None if there is none.

        Args:
            names: fields of a request; or `system`; or `thoughts`, if a reply begins with one; or `fewest_tokens` or
                `top_logprobs`, with a limit.
            written: fields that the user has set; they never change.
            limit: of the length, or of what `names` says, if the endpoint named one.
        """
        for name in names:
            changed = self
            if name in SAMPLING and name not in written:
                changed = self._with(dropped=tuple(sorted({*self.form.dropped, name})))
            elif name in LENGTHS and limit is not None:
                changed = self._with(most_tokens=limit) if "max_tokens" not in written else self
            elif name in LENGTHS:
                changed = replace(self, length_field=LENGTHS[1 - LENGTHS.index(name)])
            elif name == "fewest_tokens":
                changed = self._with(fewest_tokens=limit)
            elif name == "top_logprobs" and limit is not None:
                changed = replace(self, top_logprobs=limit)
            elif name == "system":
                changed = self._with(system=False)
            elif name == "thoughts" and self.thoughts_off + 1 < len(WITHOUT_THOUGHTS):
                changed = replace(self, thoughts_off=self.thoughts_off + 1)
            elif name == "stream":
                changed = replace(self, stream=True)
            elif name == "stream_options":
                changed = replace(self, stream_usage=False)
            if changed != self:
                return changed
        return None

    def _with(self, **changes: Any) -> Manners:
        form = self.form._replace(**changes)
        earlier = (self.form, *self.earlier) if self.worked and form != self.form else self.earlier
        return replace(self, form=form, earlier=earlier)


def _form(row: Mapping[str, Any]) -> SentForm:
    known = {name: value for name, value in row.items() if name in SentForm._fields}
    return SentForm(**known)._replace(dropped=tuple(known.get("dropped", ())))
