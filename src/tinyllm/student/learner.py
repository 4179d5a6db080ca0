"""The learner: computes, for a batch, its part of the loss and the cross-entropy of each target token."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
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
)
from tinyllm.student._loss import Head, head_in_fp32, step_loss, weighted_cross_entropy
from tinyllm.student._positions import forget_lengths, positions_of
from tinyllm.student._rows import Row
from tinyllm.student._steps import MicroBatch
from tinyllm.student._verify import Verification
from tinyllm.student._ways import Way, decoder_start, unwrapped
from tinyllm.student.plan import Shape

_LONGEST = 2048  # tokens of the longest row, where nobody says
_MASKED_KINDS = {"sliding_attention", "chunked_attention"}


class Learner(nn.Module):
    """Computes the loss of target tokens, with logits at targets only.

    The body of the transformer and its head are called separately, because logits for a vocabulary of 50,000 at every
    prompt token cost more than the rest. Models differ in what they do between the two (scaling, capping), and in
    whether their attention can be replaced. `verify` checks that logits and gradients equal those of the student's own
    `forward`. If they do not, it chooses a slower way.

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
        """Return the shape of this student's micro-batches, for a budget of so many tokens."""
        if self._company is not None and not self.way.alone:
            tokens = min(tokens, self._company)
        return Shape(tokens, self.way.packed, self.is_encoder_decoder)

    def notes(self) -> tuple[str, ...]:
        """Return notes for the user if the way is not the fastest."""
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
            StudentError: a row is longer than the positions of the model, or than the rows of the probe.
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
        """Return the batch's part of the loss, a scalar, and the cross-entropies of target tokens, (N,), detached."""
        labels, weights, choices = batch["labels"], batch["weights"], batch.get("choices")
        if self.way.whole_forward:
            each = functional.cross_entropy(self.target_logits(batch).float(), labels, reduction="none")
            return step_loss(each, weights, choices), each.detach()
        return weighted_cross_entropy(self._head(), self._target_states(batch), labels, weights, choices)

    def target_logits(self, batch: Batch) -> Tensor:
        """Return the logits that predict the target tokens, (N, V). Without a gradient they are in float32."""
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
            StudentError: the model sees the tokens that it has to predict, is random, or fails.
        """
        was_training = self.training
        verification = self._verification(longest or _LONGEST)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            verification.take_fastest(learns=learns)
        self.train(was_training)

    def take(self, way: Way) -> None:
        """Use this way from now on."""
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
        """Compile the layers of the student inside the block (torch.compile). Layers of one kind share a program.

        Raises:
            StudentError: the model does not name its layers.
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

    def refuse_if_it_sees_ahead(self) -> None:
        """Check on a short row that changing a token does not change the predictions before it.

        Raises:
            StudentError: they change.
        """
        self._verification(0).refuse_if_it_sees_ahead()

    def _verification(self, longest: int) -> Verification:
        """Return a probe for rows of up to so many tokens, and store for which lengths it is valid."""
        verification = Verification(self, longest)
        self._reach, self._company = verification.reach, verification.company
        return verification

    @property
    def _name(self) -> str:
        return type(unwrapped(self.student)).__name__

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
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
            # A mask that packed attention does not look at. It keeps the model from making its own.
            none: Any = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=batch["input_ids"].device)
            kinds = self._kinds()
            mask = dict.fromkeys(kinds, none) if kinds & _MASKED_KINDS else none
            inputs |= {"packing": batch["packing"], "attention_mask": mask}
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
        accepted = inspect.signature(unwrapped(self.student).forward).parameters
        logits = []
        for row, length in enumerate(batch["lengths"].tolist()):
            at, tokens = places[rows == row], of_decoder[row : row + 1, :length]
            if self.is_encoder_decoder:
                prompt = int(batch["prompt_of"][row])
                real = batch["attention_mask"][prompt].bool()
                inputs = {"input_ids": batch["input_ids"][prompt][real][None], "decoder_input_ids": tokens}
            else:
                inputs = {"input_ids": tokens}
            # Models that can do so compute no other logits. With a cache, FSMT's decoder sees ahead and BLT fails.
            wanted = {"logits_to_keep": at, "use_cache": False}
            forget_lengths(self.student)
            found = _logits(self.student(**inputs, **{n: v for n, v in wanted.items() if n in accepted}))[0]
            logits.append(found if "logits_to_keep" in accepted and len(found) == len(at) else found[at])
        return torch.cat(logits)

    def _masks(self, batch: Batch) -> Tensor | dict[str, Tensor]:
        """Return the mask; one per kind of layer if the model mixes full attention with another kind."""
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
        """Return the kinds of the model's layers; empty if the configuration names none."""
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
    """Return the kind of attention of a model, or of each of its parts, which can support different kinds."""
    parts = {name: _attention(getattr(config, name, None)) for name in getattr(config, "sub_configs", ())}
    parts = {name: kind for name, kind in parts.items() if kind is not None}
    own = getattr(config, "_attn_implementation", None)
    return {"": own, **parts} if parts else own


def _at(states: Tensor, flat: Tensor) -> Tensor:
    """Return (N, d): the rows `flat` of (B, T, d), flattened to (B·T, d)."""
    return states.reshape(-1, states.shape[-1]).index_select(0, flat)


def _logits(output: Any) -> Tensor:
    logits: Tensor = output.logits
    return logits
