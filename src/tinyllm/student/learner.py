"""The learner: a student as a function from a batch to its part of the loss, and to each target's cross-entropy."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tinyllm.errors import StudentError
from tinyllm.student._attention import NAME, drops_scores, register, share_position_bias, visible
from tinyllm.student._batch import (
    Batch,
    packed_causal_batch,
    packed_encoder_decoder_batch,
    padded_causal_batch,
    padded_encoder_decoder_batch,
    to_device,
)
from tinyllm.student._loss import Head, head_in_fp32, step_loss, weighted_cross_entropy
from tinyllm.student._positions import bounds, exceeded_bound, forget_lengths, positions_of
from tinyllm.student._probe import (
    Gradients,
    apart,
    compared_parameters,
    long_rows,
    micro_batch,
    plain_tokens,
    same_gradients,
    same_logits,
    short_rows,
    without_noise,
)
from tinyllm.student._rows import Row
from tinyllm.student._steps import MicroBatch
from tinyllm.student._ways import ALONE, UNFIT, Way, decoder_start, unwrapped
from tinyllm.student.plan import Shape

_LONGEST = 2048  # tokens of the longest row, where nobody says
_MASKED_KINDS = {"sliding_attention", "chunked_attention"}
_CHEAP = 1e10  # parameters times tokens: up to so many long rows' gradients are compared, too
_USUAL = "a causal model (Llama, Qwen, Gemma, SmolLM, …) or an encoder-decoder (T5, BART, …)"


class Learner(nn.Module):
    """Computes the loss of target tokens, with logits at targets only.

    The transformer's body and its head are called apart, because logits for a vocabulary of 50,000 at every prompt
    token cost more than the rest. Models differ in what they do between the two (scaling, capping), and in whether
    their attention can be replaced; `verify` checks that this student's logits and gradients are the ones that its own
    `forward` gives, and falls back where they aren't.

    Args:
        model: a `PreTrainedModel`, or a `PeftModel` around one.
        pad: padding token.
    """

    def __init__(self, model: Any, *, pad: int) -> None:
        super().__init__()
        self.student = model
        self.pad = pad
        self.way = Way()
        self.positions = positions_of(model)
        self._reach: int | None = None  # tokens of a row, and of a micro-batch, up to which the probe has looked
        self._company: int | None = None
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)
        self._own_attention = _attention(unwrapped(model).config)
        # transformers.Trainer looks these up on the module it trains.
        self.config = model.config
        self._no_split_modules = getattr(model, "_no_split_modules", None)

    @property
    def share_prompt(self) -> bool:
        """Whether all tasks of a question share one row."""
        return self.way.share_prompt

    def shape(self, tokens: int) -> Shape:
        """Return the shape of micro-batches that suits this student, with a budget of so many tokens."""
        if self._company is not None and not self.way.alone:
            tokens = min(tokens, self._company)
        return Shape(tokens, self.way.packed, self.is_encoder_decoder)

    def notes(self) -> tuple[str, ...]:
        """Return what a person should know of a way that is not the fastest."""
        if self.way.alone:
            return ("this model's rows cannot share a batch exactly, so each is computed alone (slower)",)
        if not self.way.share_prompt:
            return ("this model's attention takes no mask, so each task is computed in a row of its own (slower)",)
        if not self.way.packed and self.device.type == "cpu":
            return ("this model's attention cannot be replaced, so rows are padded to the longest (slower)",)
        return ()

    def collate(self, micro: MicroBatch, tasks: Sequence[str]) -> Batch:
        """Lay out a micro-batch for this student, on the CPU.

        Raises:
            StudentError: a row is longer than the model's positions, or than the probe looked at.
        """
        self._check_lengths(micro.rows)
        if self.is_encoder_decoder:
            start = decoder_start(self.student)
            if self.way.packed:
                return packed_encoder_decoder_batch(micro, tasks, start)
            return padded_encoder_decoder_batch(micro, tasks, self.pad, start)
        if self.way.packed:
            return packed_causal_batch(micro, tasks)
        return padded_causal_batch(micro, tasks, self.pad, whole=self.way.alone)

    def _check_lengths(self, rows: Sequence[Row]) -> None:
        prompt = max(len(row.prompt) for row in rows)
        target = max(len(b.target) for row in rows for b in row.branches)
        longest = max(len(row.prompt) + len(b.prefix) + len(b.target) for row in rows for b in row.branches)
        fed = longest if self.way.alone else longest - 1
        self.positions.check(*((prompt, target) if self.is_encoder_decoder else (fed, 0)))
        if self._reach is not None and longest > self._reach and not self.way.alone:
            raise StudentError(
                f"student.model: {self._name} computes otherwise past {self._reach} tokens, and a row has {longest}. "
                f"Set train.max_input_tokens so that inputs and choices have at most {self._reach} tokens together."
            )

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the batch's part of the loss, a scalar; and each target token's cross-entropy (N,), without one."""
        labels, weights, choices = batch["labels"], batch["weights"], batch.get("choices")
        if self.way.whole_forward:
            each = functional.cross_entropy(self.target_logits(batch).float(), labels, reduction="none")
            return step_loss(each, weights, choices), each.detach()
        return weighted_cross_entropy(self._head(), self._target_states(batch), labels, weights, choices)

    def target_logits(self, batch: Batch) -> Tensor:
        """Return the logits that predict the target tokens, (N, V); in float32 where no gradient is wanted."""
        if self.way.whole_forward:
            exact = contextlib.nullcontext() if torch.is_grad_enabled() else head_in_fp32(self._head().layer)
            with exact:
                if self.way.alone:
                    return self._alone(batch)
                states = self._encoder_decoder(batch) if self.is_encoder_decoder else self._causal(batch)
            return _at(states, batch["target_at"])
        return self._head().logits(self._target_states(batch))

    def verify(self, longest: int | None = None, *, learns: bool = True) -> None:
        """Choose the fastest way that agrees with the model's plain `forward` of each row by itself.

        Rows of the probe are longer than every bound in the model's configuration (window, chunk, capacity, …) that
        rows of the run may exceed.

        Args:
            longest: tokens of the longest row.
            learns: also compare the gradients.

        Raises:
            StudentError: the model looks ahead at what it is to predict, is random, or fails.
        """
        was_training = self.training
        short, long = self._probe(longest or _LONGEST)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            self.take(ALONE)
            parameters = compared_parameters(self) if learns else []
            plain = self._plain(short, long, parameters)
            for way in () if plain.is_spoilt else self._ways():
                self.take(way)
                if way == ALONE or self._agrees(plain):
                    break
        self.train(was_training)

    def take(self, way: Way) -> None:
        """Compute this way from now on."""
        self.way = way
        inner = unwrapped(self.student)
        implementation = NAME if way.packed else self._own_attention
        if way.packed:
            register()
            share_position_bias(inner)
        if _attention(inner.config) != implementation:
            inner.set_attn_implementation(implementation)

    @contextlib.contextmanager
    def compiled(self) -> Iterator[None]:
        """Compile the student's layers for the time being (torch.compile), one program for all layers that are alike.

        Raises:
            StudentError: the model does not say what its layers are.
        """
        kinds = set(self._no_split_modules or ())
        layers: list[Any] = [m for m in unwrapped(self.student).modules() if type(m).__name__ in kinds]
        if not layers:
            raise StudentError("train.compile: this model does not say what its layers are; set it to false.")
        # Layers are compiled one by one, so DDP must not cut them as it would a whole model; an encoder-decoder's are
        # of several kinds, in training and in validation, with adapters and without.
        with torch._dynamo.config.patch(optimize_ddp=False, recompile_limit=64):
            try:
                for layer in layers:
                    layer.compile(dynamic=True)
                yield
            finally:
                for layer in layers:
                    layer._compiled_call_impl = None  # there is no other way back

    def _ways(self) -> Iterator[Way]:
        """Yield the ways worth trying, the fastest first."""
        # FlexAttention, which packs on a GPU, learns no position bias (T5).
        if self.device.type != "cuda" or not self.is_encoder_decoder:
            yield from (Way(), Way(whole_forward=True))
        for share_prompt in (True, False):
            for whole_forward in (False, True):
                yield Way(packed=False, share_prompt=share_prompt, whole_forward=whole_forward)
        yield ALONE

    def _probe(self, longest: int) -> tuple[list[Row], list[Row]]:
        """Return the short and the long rows of a probe, and note up to which lengths they tell anything."""
        bound = exceeded_bound(self.config, longest, self.positions.shortest)
        tokens = plain_tokens(self.student)
        short = short_rows(tokens, is_encoder_decoder=self.is_encoder_decoder)
        long = [] if bound is None else long_rows(tokens, bound, is_encoder_decoder=self.is_encoder_decoder)
        self._reach = next((b.tokens for b in bounds(self.config) if b.tokens >= longest), None)
        together = sum(row.length for row in (*short, *long))
        self._company = next((b.tokens for b in bounds(self.config) if b.counts_company and b.tokens >= together), None)
        return short, long

    def refuse_if_it_sees_ahead(self) -> None:
        """Look whether a change of a token changes what is predicted before it, in a short row.

        Raises:
            StudentError: it does.
        """
        self.eval()
        self.take(ALONE)
        row = _telling(apart(self._probe(0)[0]))
        with contextlib.suppress(*UNFIT):
            self._refuse_if_it_sees_ahead(row, self._result([row]).logits)

    def _refuse_if_it_sees_ahead(self, row: Row, logits: Tensor) -> None:
        *before, token, last = row.branches[0].target
        other = next((t for t in plain_tokens(self.student) if t != token), token)
        changed = replace(row.branches[0], target=(*before, other, last))
        found = self._result([replace(row, branches=(changed,))]).logits
        if not same_logits(found[:-1], logits[:-1]):
            self._refuse_if_random(row, logits)
            raise StudentError(
                f"student.model: {self._name} sees the tokens that it is to predict, so neither training nor its "
                f"scores would mean anything. Choose {_USUAL}; or, if this model was trained to predict the next "
                "token, set is_decoder to true in its config.json."
            )

    def _refuse_if_random(self, row: Row, logits: Tensor) -> None:
        if not same_logits(self._result([row]).logits, logits) and not logits.isnan().any():
            raise StudentError(
                f"student.model: {self._name} gives other scores each time it reads the same tokens. Choose {_USUAL}."
            )

    def _plain(self, short: list[Row], long: list[Row], parameters: Sequence[nn.Parameter]) -> _Plain:
        """Compute the rows of a probe one by one, as the model itself does.

        Raises:
            StudentError: that is no use.
        """
        rows, more = apart(short), apart(long)
        count, row = len(rows) + len(more), _telling(rows)
        size = sum(p.numel() for p in self.parameters())
        of_long = parameters if size * sum(r.length for r in more) < _CHEAP else []
        try:
            first, trains = self._of_training(row, count, parameters)
            self._refuse_if_random(row, first.logits)
            results = [first if r is row else self._result([r], count, parameters, trains) for r in rows]
            results += [self._result([r], count, of_long, trains) for r in more]
        except UNFIT as error:
            longest = max(r.length for r in (*rows, *more))
            raise StudentError(
                f"student.model: {self._name} fails on rows of up to {longest} tokens: {_first_line(error)} "
                f"Choose {_USUAL}."
            ) from error
        plain = _Plain(short, long, results, parameters, of_long, trains)
        if not plain.is_spoilt:
            for those, found in ((rows, results[: len(rows)]), (more, results[len(rows) :])):
                for telling in [_telling(those)] if those else []:
                    self._refuse_if_it_sees_ahead(telling, found[those.index(telling)].logits)
        return plain

    def _of_training(self, row: Row, count: int, parameters: Sequence[nn.Parameter]) -> tuple[_Result, bool]:
        """Return a row's result; and whether its gradient is that of training, not of answering.

        A model that is random while it trains, whatever its settings (a router that draws), is compared as it answers.
        """
        if not parameters:
            return self._result([row], count), False
        once, again = (self._result([row], count, parameters, trains=True) for _ in range(2))
        if same_gradients(again.gradients, once.gradients):
            return once, True
        return self._result([row], count, parameters), False

    def _agrees(self, plain: _Plain) -> bool:
        """Whether the way that is taken gives what plain rows give; short rows first, which cost least."""
        count, split = len(plain.results), len(apart(plain.short))
        probes = [(plain.short, plain.results[:split], plain.parameters)]
        if plain.long:
            probes.append(([*plain.short, *plain.long], plain.results, plain.of_long))
        try:
            for rows, results, parameters in probes:
                asked = rows if self.way.share_prompt else apart(rows)
                found = self._result(asked, count, parameters, plain.trains)
                gradients = [_sum(of) for of in zip(*(r.gradients for r in results), strict=False)]
                if not same_logits(found.logits, torch.cat([r.logits for r in results])):
                    return False
                if parameters and not same_gradients(found.gradients, gradients):
                    return False
            if plain.parameters and self.way.packed and not drops_scores(self.device):
                self.train()
                with torch.no_grad():  # raises where it would drop
                    self(to_device(self.collate(micro_batch(plain.short, count), ()), self.device))
        except UNFIT:
            return False  # a model whose attention, head or masks have another interface
        return True

    def _result(
        self,
        rows: Sequence[Row],
        branches: int = 1,
        parameters: Sequence[nn.Parameter] = (),
        trains: bool = False,
    ) -> _Result:
        """Return the logits of rows, and the gradient of their loss.

        Args:
            branches: of all rows of the probe; the loss is the mean over them of the mean over tokens.
            trains: as while it trains, but for noise; else as while it answers.
        """
        batch = to_device(self.collate(micro_batch(rows, branches), ()), self.device)
        self.eval()
        with torch.no_grad():
            logits = self.target_logits(batch).float()
        if not parameters:
            return _Result(logits, ())
        self.train(trains)
        with without_noise(self) if trains else contextlib.nullcontext(), torch.enable_grad():
            loss, _ = self(batch)
            return _Result(logits, torch.autograd.grad(loss, list(parameters), allow_unused=True))

    @property
    def _name(self) -> str:
        return type(unwrapped(self.student)).__name__

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.student.parameters()).device
        return device

    def _target_states(self, batch: Batch) -> Tensor:
        """Return the hidden states that predict the target tokens, (N, d)."""
        states = self._encoder_decoder(batch) if self.is_encoder_decoder else self._causal(batch)
        picked = _at(states, batch["target_at"])
        # T5 with tied embeddings
        return picked * (self.config.d_model**-0.5) if getattr(self.config, "scale_decoder_outputs", False) else picked

    def _head(self) -> Head:
        cap = getattr(self.config.get_text_config(), "final_logit_softcapping", None)  # Gemma 2
        return Head(unwrapped(self.student).get_output_embeddings(), cap)

    def _causal(self, batch: Batch) -> Tensor:
        """Return the last hidden states (B, T, d); logits for a whole forward."""
        inputs = {"input_ids": batch["input_ids"], "use_cache": False}
        if self.way.share_prompt:
            inputs["position_ids"] = batch["position_ids"]
        if self.way.packed:
            inputs |= {"packing": batch["packing"], "attention_mask": self._no_masks(batch)}
        else:
            inputs |= {"attention_mask": self._masks(batch)}
        if self.way.whole_forward:
            return _logits(self.student(**inputs))
        states: Tensor = unwrapped(self.student).base_model(**inputs).last_hidden_state
        return states

    def _alone(self, batch: Batch) -> Tensor:
        """Return the logits of targets, (N, V), by one plain forward of each row."""
        of_decoder = batch["decoder_input_ids"] if self.is_encoder_decoder else batch["input_ids"]
        rows, places = batch["target_at"] // of_decoder.shape[1], batch["target_at"] % of_decoder.shape[1]
        logits = []
        for row, length in enumerate(batch["lengths"].tolist()):
            at, tokens = places[rows == row], of_decoder[row : row + 1, :length]
            if self.is_encoder_decoder:
                prompt = int(batch["prompt_of"][row])
                real = batch["attention_mask"][prompt].bool()
                inputs = {"input_ids": batch["input_ids"][prompt][real][None], "decoder_input_ids": tokens}
            else:
                inputs = {"input_ids": tokens}
            logits.append(self._logits_at(inputs, at))
        return torch.cat(logits)

    def _logits_at(self, inputs: dict[str, Tensor], at: Tensor) -> Tensor:
        """Return the logits of one row at some places (N, V); those at others are not made where the model can."""
        forget_lengths(self.student)
        accepted = inspect.signature(unwrapped(self.student).forward).parameters
        # With a cache, FSMT's decoder sees ahead and BLT fails.
        wanted = {"logits_to_keep": at, "use_cache": False}
        logits = _logits(self.student(**inputs, **{n: v for n, v in wanted.items() if n in accepted}))[0]
        return logits if "logits_to_keep" in accepted and len(logits) == len(at) else logits[at]

    def _no_masks(self, batch: Batch) -> Any:
        """Return what keeps a model from making masks, which packed attention does not look at."""
        none = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=batch["input_ids"].device)
        kinds = self._kinds()
        return dict.fromkeys(kinds, none) if kinds & _MASKED_KINDS else none

    def _masks(self, batch: Batch) -> Tensor | dict[str, Tensor]:
        """Return the mask; one a kind of layer where the model mixes full attention with another."""
        if not self.way.share_prompt:
            padding: Tensor = batch["segments"] < 0
            return (~padding).long()
        config, kinds = self.config.get_text_config(), self._kinds()
        seen_by = batch["segments"], batch["position_ids"]
        window, chunk = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
        full: Tensor = visible(*seen_by, *seen_by, window=None if kinds else window)[:, None]
        if not kinds & _MASKED_KINDS:
            return full  # also of models that have a window everywhere (Mistral, Phi-3)
        masks = {"full_attention": full}
        if "sliding_attention" in kinds:
            masks["sliding_attention"] = visible(*seen_by, *seen_by, window=window)[:, None]
        if "chunked_attention" in kinds:
            place = batch["position_ids"] // chunk
            masks["chunked_attention"] = full & (place[:, :, None] == place[:, None, :])[:, None]
        return masks

    def _kinds(self) -> set[str]:
        """Return the kinds of the model's layers, where it has several."""
        return set(getattr(self.config.get_text_config(), "layer_types", None) or ())

    def _encoder_decoder(self, batch: Batch) -> Tensor:
        """Return the decoder's last hidden states (B, U, d); logits for a whole forward."""
        model = unwrapped(self.student)
        if self.way.packed:
            none = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=batch["input_ids"].device)
            encoded = model.get_encoder()(
                input_ids=batch["input_ids"], attention_mask=none, packing=batch["packing"]
            )  # fmt: skip
            states, mask, own = encoded.last_hidden_state, none, none
            more: dict[str, Any] = {"packing": batch["decoder_packing"]}
        else:
            encoded = model.get_encoder()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            states = encoded.last_hidden_state.index_select(0, batch["prompt_of"])
            mask, own, more = batch["attention_mask"].index_select(0, batch["prompt_of"]), None, {}
        decoder_inputs = batch["decoder_input_ids"]
        if self.way.whole_forward:
            encoded.last_hidden_state = states
            return _logits(
                model(
                    encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=decoder_inputs,
                    decoder_attention_mask=own, use_cache=False, **more,
                )
            )  # fmt: skip
        decoded: Tensor = model.get_decoder()(
            input_ids=decoder_inputs, attention_mask=own, encoder_hidden_states=states, encoder_attention_mask=mask,
            use_cache=False, **more,
        ).last_hidden_state  # fmt: skip
        return decoded


def _attention(config: Any) -> Any:
    """Return the kind of attention of a model; by part where it has parts, which need not know the same kinds."""
    parts = {name: _attention(getattr(config, name, None)) for name in getattr(config, "sub_configs", ())}
    parts = {name: kind for name, kind in parts.items() if kind is not None}
    own = getattr(config, "_attn_implementation", None)
    return {"": own, **parts} if parts else own


def _at(states: Tensor, flat: Tensor) -> Tensor:
    """Pick from (B, T, d) the places `flat` of (B·T), giving (N, d)."""
    return states.reshape(-1, states.shape[-1]).index_select(0, flat)


def _logits(output: Any) -> Tensor:
    logits: Tensor = output.logits
    return logits


def _first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@dataclass(frozen=True, slots=True)
class _Result:
    """What a way gives for rows of a probe."""

    logits: Tensor
    gradients: Gradients


@dataclass(frozen=True, slots=True)
class _Plain:
    """A probe, and what plain rows give for it.

    Attributes:
        results: of each branch of the short rows, then of the long ones.
        parameters: whose gradients are compared; of_long: where long rows take part, which only small models afford.
        trains: gradients are those of training, else of answering.
    """

    short: list[Row]
    long: list[Row]
    results: list[_Result]
    parameters: Sequence[nn.Parameter]
    of_long: Sequence[nn.Parameter]
    trains: bool

    @property
    def is_spoilt(self) -> bool:
        """Whether there is nothing to compare: weights are no numbers, and scoring or training will say where."""
        return any(bool(r.logits.isnan().any()) for r in self.results)


def _telling(rows: Sequence[Row]) -> Row:
    """Return the row with the most to predict."""
    return max(rows, key=lambda r: len(r.branches[0].target))


def _sum(gradients: Sequence[Tensor | None]) -> Tensor | None:
    some = [g for g in gradients if g is not None]
    return torch.stack(some).sum(0) if some else None
