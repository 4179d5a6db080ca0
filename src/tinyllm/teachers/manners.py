"""How an endpoint wants to be asked: what is found out once, remembered in the store, and applied to each request."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tinyllm.teachers.base import Request

LENGTHS = ("max_tokens", "max_completion_tokens")
SAMPLING = ("temperature", "top_p", "seed", "stop")
"""Parameters that may be left out of a request. The longest length may be renamed, never left out."""

WITHOUT_THOUGHTS: tuple[Mapping[str, Any], ...] = (
    {},
    {"chat_template_kwargs": {"enable_thinking": False}},  # vLLM, SGLang, llama.cpp
    {"reasoning_effort": "none"},  # OpenAI, Ollama, Gemini
)
"""Fields of a request that keep a model from thinking before it answers, in the order in which they are tried."""


class SentForm(NamedTuple):
    """The part of the manners that changes what is sent so much that it can change the reply.

    Attributes:
        dropped: sampling parameters that the endpoint refuses.
        most_tokens: the most that it takes as the length of a reply; None: not known.
        system: whether it takes a system message; otherwise its text begins the first user message.
    """

    dropped: tuple[str, ...] = ()
    most_tokens: int | None = None
    system: bool = True


_AS_WANTED = SentForm()


@dataclass(frozen=True, slots=True)
class Manners:
    """What one model at one endpoint takes.

    Attributes:
        form: of what is sent.
        earlier: forms in which it gave replies before; those are not asked for again.
        length_field: what it calls the most tokens of a reply.
        stream: whether it answers only as a stream.
        stream_usage: whether it takes `stream_options`.
        thinks: whether a thought of it has filled the tokens that were allowed, so that it needs more.
        thoughts_off: which of `WITHOUT_THOUGHTS` is sent where the first token has to be the answer.
        worked: whether it has ever given a reply: then an error that nobody knows is about the one prompt.
    """

    form: SentForm = SentForm()
    earlier: tuple[SentForm, ...] = ()
    length_field: str = "max_tokens"
    stream: bool = False
    stream_usage: bool = True
    thinks: bool = False
    thoughts_off: int = 0
    worked: bool = False

    def dump(self) -> str:
        """Return it as JSON, as the store keeps it."""
        forms = {"form": self.form._asdict(), "earlier": [form._asdict() for form in self.earlier]}
        return json.dumps(asdict(self) | forms)

    @classmethod
    def load(cls, text: str) -> Manners:
        """Read what `dump` wrote. Keys that this version does not know are left out."""
        found = {name: value for name, value in json.loads(text).items() if name in {f.name for f in fields(cls)}}
        form, *earlier = (_form(row) for row in (found.pop("form", {}), *found.pop("earlier", ())))
        return cls(form, tuple(earlier), **found)


def _form(row: Mapping[str, Any]) -> SentForm:
    known = {name: value for name, value in row.items() if name in SentForm._fields}
    return SentForm(**known)._replace(dropped=tuple(known.get("dropped", ())))


def without(
    manners: Manners, names: Sequence[str], written: Collection[str], most_tokens: int | None = None
) -> Manners | None:
    """Return manners under which the first of some refused parts that may change is not sent as it was.

    Args:
        names: of a request's fields; or `system`; or `thoughts`, where a reply begins with one.
        written: fields that a person has set, which are sent as they are.
        most_tokens: the most that the endpoint takes as a length, where it said so.

    Returns:
        None if nothing may change.
    """
    form = manners.form
    for name in names:
        changed = manners
        if name in SAMPLING and name not in written:
            changed = _with(manners, form._replace(dropped=tuple(sorted({*form.dropped, name}))))
        elif name in LENGTHS and most_tokens is not None:
            changed = _with(manners, form._replace(most_tokens=most_tokens)) if "max_tokens" not in written else manners
        elif name in LENGTHS:
            changed = replace(manners, length_field=LENGTHS[1 - LENGTHS.index(name)])
        elif name == "system":
            changed = _with(manners, form._replace(system=False))
        elif name == "thoughts" and manners.thoughts_off + 1 < len(WITHOUT_THOUGHTS):
            changed = replace(manners, thoughts_off=manners.thoughts_off + 1)
        elif name == "stream":
            changed = replace(manners, stream=True)
        elif name == "stream_options":
            changed = replace(manners, stream_usage=False)
        if changed != manners:
            return changed
    return None


def _with(manners: Manners, form: SentForm) -> Manners:
    earlier = (manners.form, *manners.earlier) if manners.worked and form != manners.form else manners.earlier
    return replace(manners, form=form, earlier=earlier)


def formed(
    request: Request, form: SentForm, kept: Collection[str] = (), omitted: Collection[str] = (), least_tokens: int = 0
) -> Request:
    """Return a request as it is sent in a form. What stays in it is what can change the reply.

    Args:
        kept: parameters that a person has set: they are sent whatever is remembered, and refused again if need be.
        omitted: parameters that a person wants not to be sent.
        least_tokens: the length is never lowered below it.
    """
    if form == _AS_WANTED and not omitted:  # of nearly all requests
        return request
    dropped = {*(set(form.dropped) - set(kept)), *omitted}
    sampling, prompt = request.sampling, request.prompt
    if dropped:
        sampling = replace(
            sampling,
            temperature=None if "temperature" in dropped else sampling.temperature,
            top_p=None if "top_p" in dropped else sampling.top_p,
            seed=None if "seed" in dropped else sampling.seed,
            stop=() if "stop" in dropped else sampling.stop,
        )
    if form.most_tokens is not None and sampling.max_tokens > (most := max(form.most_tokens, least_tokens)):
        sampling = replace(sampling, max_tokens=most)
    if not form.system and prompt.messages and prompt.messages[0].role == "system":
        system, first, *rest = prompt.messages
        joined = replace(first, content=f"{system.content}\n\n{first.content}")
        prompt = replace(prompt, messages=(joined, *rest))
    if sampling is request.sampling and prompt is request.prompt:
        return request
    return replace(request, sampling=sampling, prompt=prompt)
