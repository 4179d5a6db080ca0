"""The learner: a student as a function from a batch to its part of the loss, and to each target's cross-entropy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tinyllm.errors import StudentError
from tinyllm.student._attention import NAME, register, share_position_bias, visible
from tinyllm.student._batch import (
    Batch,
    packed_causal_batch,
    packed_encoder_decoder_batch,
    padded_causal_batch,
    padded_encoder_decoder_batch,
    to_device,
)
from tinyllm.student._loss import Head, head_in_fp32, weighted_cross_entropy
from tinyllm.student.encode import Branch, Row
from tinyllm.student.plan import MicroBatch, Shape


@dataclass(frozen=True, slots=True)
class Way:
    """A way to compute a student's loss; all give the same.

    Attributes:
        packed: all rows of a micro-batch end to end, without padding; else side by side, padded to the longest.
        share_prompt: all tasks of a question in one row, where the student is causal; else a row each.
        whole_forward: the model's own forward, with logits at every token; else its body, and its head at targets.
    """

    packed: bool = True
    share_prompt: bool = True
    whole_forward: bool = False


class Learner(nn.Module):
    """Computes the loss of target tokens, with logits at targets only.

    The transformer's body and its head are called apart, because logits for a vocabulary of 50,000 at every prompt
    token cost more than the rest. Models differ in what they do between the two (scaling, capping), and in whether
    their attention can be replaced; `verify` checks that this student's logits are the ones its own `forward` gives,
    and falls back where they aren't.

    Args:
        model: a `PreTrainedModel`, or a `PeftModel` around one.
        pad: padding token.
    """

    def __init__(self, model: Any, *, pad: int) -> None:
        super().__init__()
        self.student = model
        self.pad = pad
        self.way = Way()
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)
        self._own_attention = unwrapped(model).config._attn_implementation
        # transformers.Trainer looks these up on the module it trains.
        self.config = model.config
        self._no_split_modules = getattr(model, "_no_split_modules", None)

    @property
    def share_prompt(self) -> bool:
        """Whether all tasks of a question share one row."""
        return self.way.share_prompt

    def shape(self, tokens: int) -> Shape:
        """Return the shape of micro-batches that suits this student, with a budget of so many tokens."""
        return Shape(tokens, self.way.packed, self.is_encoder_decoder)

    def notes(self) -> tuple[str, ...]:
        """Return what a person should know of a way that is not the fastest."""
        if not self.way.share_prompt:
            return ("this model's attention takes no mask, so each task is computed in a row of its own (slower)",)
        if not self.way.packed and self.device.type == "cpu":
            return ("this model's attention cannot be replaced, so rows are padded to the longest (slower)",)
        return ()

    def collate(self, micro: MicroBatch, tasks: Sequence[str]) -> Batch:
        """Lay out a micro-batch for this student, on the CPU."""
        if self.is_encoder_decoder:
            start = decoder_start(self.student)
            if self.way.packed:
                return packed_encoder_decoder_batch(micro, tasks, start)
            return padded_encoder_decoder_batch(micro, tasks, self.pad, start)
        if self.way.packed:
            return packed_causal_batch(micro, tasks)
        return padded_causal_batch(micro, tasks, self.pad)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return Σ weight · cross-entropy, a scalar; and each target token's cross-entropy (N,), without gradient."""
        if self.way.whole_forward:
            each = functional.cross_entropy(self.target_logits(batch).float(), batch["labels"], reduction="none")
            return (each * batch["weights"]).sum(), each.detach()
        return weighted_cross_entropy(self._head(), self._target_states(batch), batch["labels"], batch["weights"])

    def target_logits(self, batch: Batch) -> Tensor:
        """Return the logits that predict the target tokens, (N, V); in float32 where no gradient is wanted."""
        if self.way.whole_forward:
            exact = contextlib.nullcontext() if torch.is_grad_enabled() else head_in_fp32(self._head().layer)
            with exact:
                states = self._encoder_decoder(batch) if self.is_encoder_decoder else self._causal(batch)
            return _at(states, batch["target_at"])
        return self._head().logits(self._target_states(batch))

    def verify(self) -> None:
        """Choose the fastest way to this student's logits that agrees with its plain `forward` on a short probe."""
        was_training = self.training
        self.eval()
        rows = _probe_rows(self.config.get_text_config().vocab_size, self.is_encoder_decoder)
        with torch.no_grad():
            plain = torch.cat([self._plain_logits(row, b) for row in rows for b in row.branches]).float()
            for way in self._ways():
                self.take(way)
                if self._agrees(rows if self.way.share_prompt else [r for row in rows for r in row.apart()], plain):
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
        if inner.config._attn_implementation != implementation:
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
        if self._can_pack():
            yield from (Way(), Way(whole_forward=True))
        for share_prompt in (True, False):
            for whole_forward in (False, True):
                yield Way(packed=False, share_prompt=share_prompt, whole_forward=whole_forward)

    def _can_pack(self) -> bool:
        if self.device.type != "cuda":
            return True
        # FlexAttention learns no position bias (T5) and drops no scores.
        return not self.is_encoder_decoder and not getattr(self.config.get_text_config(), "attention_dropout", 0.0)

    def _agrees(self, rows: Sequence[Row], plain: Tensor) -> bool:
        weights = tuple(tuple(1.0 for _ in row.branches) for row in rows)
        batch = to_device(self.collate(MicroBatch(tuple(rows), weights), ()), self.device)
        try:
            ours = self.target_logits(batch).float()
        except (TypeError, ValueError, RuntimeError, AttributeError, KeyError):
            return False  # a model whose attention or head has another interface
        scale = plain.abs().max().clamp_min(1e-6)
        return bool(((ours - plain).abs().max() / scale < 1e-3).item())

    def _plain_logits(self, row: Row, branch: Branch) -> Tensor:
        """Return (targets, V) by the model's own forward, one branch in one row."""
        if self.is_encoder_decoder:
            decoder = torch.tensor([[decoder_start(self.student), *branch.target[:-1]]], device=self.device)
            prompt = torch.tensor([row.prompt], device=self.device)
            return _logits(self.student(input_ids=prompt, decoder_input_ids=decoder))[0]
        tokens = torch.tensor([[*row.prompt, *branch.prefix, *branch.target]], device=self.device)
        return _logits(self.student(input_ids=tokens))[0, -len(branch.target) - 1 : -1]

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
        inputs = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"], "use_cache": False}
        if self.way.packed:
            inputs |= {"packing": batch["packing"], "attention_mask": self._no_masks(batch)}
        else:
            inputs |= {"attention_mask": self._masks(batch)}
        if self.way.whole_forward:
            return _logits(self.student(**inputs))
        states: Tensor = unwrapped(self.student).base_model(**inputs).last_hidden_state
        return states

    def _no_masks(self, batch: Batch) -> Any:
        """Return what keeps a model from making masks, which packed attention does not look at."""
        none = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=batch["input_ids"].device)
        kinds = set(getattr(self.config.get_text_config(), "layer_types", None) or ())
        return dict.fromkeys(kinds, none) if "sliding_attention" in kinds else none

    def _masks(self, batch: Batch) -> Tensor | dict[str, Tensor]:
        """Return the mask; one a kind of layer where the model mixes full and sliding attention."""
        if not self.way.share_prompt:
            padding: Tensor = batch["segments"] < 0
            return (~padding).long()
        config = self.config.get_text_config()
        seen_by = batch["segments"], batch["position_ids"]
        full: Tensor = visible(*seen_by, *seen_by)[:, None]
        if "sliding_attention" not in set(getattr(config, "layer_types", None) or ()):
            return full
        sliding = visible(*seen_by, *seen_by, window=config.sliding_window)[:, None]
        return {"full_attention": full, "sliding_attention": sliding}

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


def decoder_start(model: Any) -> int:
    """Return the token that an encoder-decoder's targets start from."""
    for config in (model.config, model.generation_config):
        start = getattr(config, "decoder_start_token_id", None)
        if start is not None:
            return int(start)
    return int(model.config.pad_token_id)


def _at(states: Tensor, flat: Tensor) -> Tensor:
    """Pick from (B, T, d) the places `flat` of (B·T), giving (N, d)."""
    return states.reshape(-1, states.shape[-1]).index_select(0, flat)


def unwrapped(model: Any) -> Any:
    """Return the model inside LoRA adapters; they are part of its layers, so they still act."""
    inner: Callable[[], Any] | None = getattr(model, "get_base_model", None)
    return model if inner is None else inner()


def _logits(output: Any) -> Tensor:
    logits: Tensor = output.logits
    return logits


def _probe_rows(vocabulary: int, is_encoder_decoder: bool) -> list[Row]:
    """Return rows of different lengths; a causal student's have two branches."""

    def tokens(*numbers: int) -> tuple[int, ...]:
        return tuple(3 + n % max(1, vocabulary - 3) for n in numbers)

    one = Row("", tokens(0, 1, 2), (Branch("", (), tokens(7, 8)),))
    two = Row("", tokens(0, 1, 2, 3, 4), (Branch("", (), tokens(9, 10, 11)),))
    if is_encoder_decoder:
        return [one, two]
    branches = (Branch("", tokens(6), tokens(7, 8, 9)), Branch("", tokens(10), tokens(11, 12)))
    return [Row("", row.prompt, branches[i:]) for i, row in enumerate((one, two))]
