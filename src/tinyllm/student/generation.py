"""Text generation from prompts, in batches where that does not change the text.

Prompts of different lengths are padded on the left. Some models count the padding: those that read tokens one by one
into a state (RWKV), and those whose positions go by the longest row of a batch (long RoPE). A probe finds
out which prompts can be in one batch without changing what the student writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tinyllm.student._loss import head_in_fp32
from tinyllm.student._positions import exceeded_bound, forget_lengths, positions_of
from tinyllm.student._probe import plain_tokens, probe_prompts, same_logits
from tinyllm.student._ways import UNFIT, decoder_start, unwrapped
from tinyllm.student.model import Company, Student

_PROBED_TOKENS = 3


def written_on(
    student: Student,
    end: int,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    batch_tokens: int,
    has_ended: Callable[[list[int]], bool],
    wrote: Callable[[float], None],
) -> Iterator[dict[int, list[int]]]:
    """Yield the most likely tokens after each prompt, by the place of the prompt, group by group.

    Args:
        limits: the most tokens to write after each prompt.
        batch_tokens: the most tokens of a group, with padding.
        has_ended: says of the tokens that are written whether the rest is not needed, also without `end`.
        wrote: called after each token with the part of the group that is written, in texts of full length.

    Raises:
        StudentError: a prompt is longer than the model's positions.
    """
    limits = _within_positions(student, prompts, limits)
    for group in _groups_of(student, end, prompts, limits, batch_tokens):
        output = _continued(student, end, [prompts[i] for i in group], max(limits[i] for i in group), has_ended, wrote)
        # Each text ends at the limit of its own prompt, not at the longest limit of the group.
        yield {i: tokens[: limits[i]] for i, tokens in zip(group, output, strict=True)}


def _within_positions(student: Student, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> list[int]:
    """Return how many tokens may be written after each prompt. A text ends where the positions of the model end."""
    positions = positions_of(student.model)
    positions.check(max(map(len, prompts), default=0), 0)
    if student.is_encoder_decoder:
        return [limit if positions.target is None else min(limit, positions.target) for limit in limits]
    if positions.prompt is None:
        return list(limits)
    # The last token that is written is never read.
    return [min(limit, positions.prompt - len(p) + 1) for p, limit in zip(prompts, limits, strict=True)]


def _groups_of(
    student: Student, end: int, prompts: Sequence[Sequence[int]], limits: Sequence[int], batch_tokens: int
) -> list[list[int]]:
    """Return groups of prompts that are continued together, by number, long ones first; see `written_on`."""
    lengths = [len(p) + limit for p, limit in zip(prompts, limits, strict=True)]
    company: Company = "none"
    if any(a + b <= batch_tokens for a, b in pairwise(sorted(lengths))):
        company = _company(student, end, max(lengths))
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), limits[i]), reverse=True)
    room = positions_of(student.model).prompt
    groups: list[list[int]] = []
    for i in order:
        group = [*groups[-1], i] if groups else [i]
        longest = len(prompts[group[0]]) + max(limits[j] for j in group)
        fits = len(group) * longest <= batch_tokens and (room is None or longest <= room + 1)
        is_alike = len(prompts[group[0]]) == len(prompts[i])
        if len(group) > 1 and fits and (company == "any" or (company == "of one length" and is_alike)):
            groups[-1] = group
        else:
            groups.append([i])
    return groups


def _continued(
    student: Student,
    end: int,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    has_ended: Callable[[list[int]], bool] = lambda _: False,
    wrote: Callable[[float], None] = lambda _: None,
) -> list[list[int]]:
    """Return the most likely tokens after each prompt by greedy decoding, whatever the settings of the model are."""
    start = 1 if student.is_encoder_decoder else max(map(len, prompts))

    def ended(ids: Tensor, _: Any, **__: Any) -> Tensor:
        wrote(len(prompts) * (ids.shape[1] - start) / max_new_tokens)
        return torch.tensor([has_ended(tokens) for tokens in ids[:, start:].tolist()], device=ids.device)

    output = _generated(student, end, prompts, max_new_tokens, [ended]).sequences
    tokens: list[list[int]] = output[:, start:].tolist()
    return tokens


def _company(student: Student, end: int, longest: int) -> Company:
    """Return which prompts can be in one batch, for rows of so many tokens. A probe measures it once."""
    model = unwrapped(student.model)
    bound = exceeded_bound(model.config, longest, positions_of(model).shortest)
    if bound not in student.company:
        student.company[bound] = _probed_company(student, end, probe_prompts(plain_tokens(model), bound))
    return student.company[bound]


def _probed_company(student: Student, end: int, prompts: Sequence[Sequence[int]]) -> Company:
    alone = [_logits(student, end, [prompt])[0] for prompt in prompts]
    for company, chosen in (("any", prompts), ("of one length", [p for p in prompts if len(p) == len(prompts[-1])])):
        try:
            together = _logits(student, end, chosen)
        except UNFIT:
            continue  # a model that takes no padding, or one prompt at a time
        if all(same_logits(found, alone[prompts.index(p)]) for found, p in zip(together, chosen, strict=True)):
            return company  # type: ignore[return-value]
    return "none"


def _logits(student: Student, end: int, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the logits (tokens, V) of the first few tokens that follow each prompt."""
    settings: dict[str, Any] = {"min_new_tokens": _PROBED_TOKENS, "output_logits": True}
    found = _generated(student, end, prompts, _PROBED_TOKENS, **settings)
    return list(torch.stack(found.logits, dim=1))


def _generated(
    student: Student,
    end: int,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stops: Sequence[Callable[..., Tensor]] = (),
    **settings: Any,
) -> Any:
    from transformers import GenerationConfig, StoppingCriteriaList

    model, width, pad = unwrapped(student.model), max(map(len, prompts)), int(student.tokenizer.pad_token_id)
    # A causal student writes on from the right edge, so its padding goes to the left.
    left = not student.is_encoder_decoder
    ids = torch.tensor([_padded(p, width, pad, left) for p in prompts], device=model.device)
    mask = torch.tensor([_padded([1] * len(p), width, 0, left) for p in prompts], device=model.device)
    start = {"decoder_start_token_id": decoder_start(model)} if student.is_encoder_decoder else {}
    if not _makes_cache(model.config):
        settings["use_cache"] = False
    greedy = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, pad_token_id=pad, eos_token_id=end,
        return_dict_in_generate=True, **start, **settings,
    )  # fmt: skip
    # `generate` fills up what a configuration leaves open with the model's own, so that is put aside meanwhile.
    own, model.generation_config = model.generation_config, greedy
    forget_lengths(model)
    try:
        with head_in_fp32(model.get_output_embeddings()):
            return model.generate(
                input_ids=ids, attention_mask=mask, generation_config=greedy,
                stopping_criteria=StoppingCriteriaList(stops),
            )  # fmt: skip
    finally:
        model.generation_config = own


def _makes_cache(config: Any) -> bool:
    """Return whether transformers can make a cache for a model. For BLT it cannot, so BLT writes more slowly."""
    from transformers import DynamicCache

    try:
        DynamicCache(config=config)
    except UNFIT:
        return False
    return True


def _padded(values: Sequence[int], width: int, value: int, left: bool) -> list[int]:
    padding = [value] * (width - len(values))
    return [*padding, *values] if left else [*values, *padding]
