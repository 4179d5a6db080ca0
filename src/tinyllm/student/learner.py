"""The learner: a student as a function from a batch to the cross-entropy of each of its target tokens."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tinyllm.student.batch import Batch, causal_batch, encoder_decoder_batch, shared_prompt_mask
from tinyllm.student.encode import Branch, Row
from tinyllm.student.plan import MicroBatch


class Learner(nn.Module):
    """Computes target tokens' cross-entropies, with logits at targets only.

    The transformer's body and its head are called apart, because logits for a vocabulary of 50,000 at every prompt
    token cost more than the rest. Models differ in what they do between the two (scaling, capping); `verify` checks
    that this student's logits are the ones its own `forward` gives, and falls back to `forward` if they aren't.

    Args:
        model: a `PreTrainedModel`, or a `PeftModel` around one.
        pad: padding token.
    """

    def __init__(self, model: Any, *, pad: int) -> None:
        super().__init__()
        self.student = model
        self.pad = pad
        self.share_prompt = True
        self.whole_forward = False
        self.is_encoder_decoder = bool(model.config.is_encoder_decoder)
        # transformers.Trainer looks these up on the module it trains.
        self.config = model.config
        self._no_split_modules = getattr(model, "_no_split_modules", None)

    def collate(self, micro: MicroBatch, tasks: Sequence[str]) -> Batch:
        """Lay out a micro-batch for this student, on the CPU."""
        if self.is_encoder_decoder:
            return encoder_decoder_batch(micro, tasks, self.pad, decoder_start(self.student))
        return causal_batch(micro, tasks, self.pad)

    def forward(self, batch: Batch) -> Tensor:
        """Return the cross-entropy of every target token, (N,) in float32."""
        return functional.cross_entropy(self.target_logits(batch).float(), batch["labels"], reduction="none")

    def target_logits(self, batch: Batch) -> Tensor:
        """Return the logits that predict the target tokens, (N, V)."""
        if self.is_encoder_decoder:
            return self._encoder_decoder_logits(batch)
        return self._causal_logits(batch)

    def verify(self) -> None:
        """Choose the fastest way to this student's logits that agrees with its plain `forward` on a short probe.

        Tried in order: shared prompts or one row a branch, each with the head at targets only or a whole forward.
        """
        was_training = self.training
        self.eval()
        rows = _probe_rows(self.config.get_text_config().vocab_size, self.is_encoder_decoder)
        with torch.no_grad():
            for self.share_prompt, self.whole_forward in itertools.product((True, False), (False, True)):
                probe = rows if self.share_prompt else [r for row in rows for r in row.apart()]
                if self._agrees(probe):
                    break
        self.train(was_training)

    def _agrees(self, rows: Sequence[Row]) -> bool:
        weights = tuple(tuple(1.0 for _ in row.branches) for row in rows)
        batch = to_device(self.collate(MicroBatch(tuple(rows), weights), ()), self.device)
        try:
            ours = self.target_logits(batch).float()
        except (TypeError, ValueError, RuntimeError, AttributeError):
            return False  # a model whose attention or head has another interface
        plain = torch.cat([self._plain_logits(row, branch) for row in rows for branch in row.branches]).float()
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

    def _causal_logits(self, batch: Batch) -> Tensor:
        inputs = {
            "input_ids": batch["input_ids"],
            "position_ids": batch["position_ids"],
            "attention_mask": self._masks(batch),
            "use_cache": False,
        }
        if self.whole_forward:
            return _at(_logits(self.student(**inputs)), batch["target_at"])
        hidden = _base(self.student)(**inputs).last_hidden_state
        return self._head(_at(hidden, batch["target_at"]))

    def _masks(self, batch: Batch) -> Tensor | dict[str, Tensor]:
        """Return the mask; one a kind of layer where the model mixes full and sliding attention."""
        if not self.share_prompt:
            return (batch["segments"] >= 0).long()
        config = self.config.get_text_config()
        full = shared_prompt_mask(batch["segments"], batch["position_ids"])
        kinds = set(getattr(config, "layer_types", None) or ())
        if "sliding_attention" not in kinds:
            return full
        sliding = shared_prompt_mask(batch["segments"], batch["position_ids"], window=config.sliding_window)
        return {"full_attention": full, "sliding_attention": sliding}

    def _encoder_decoder_logits(self, batch: Batch) -> Tensor:
        model = _unwrapped(self.student)
        encoded = model.get_encoder()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        states = encoded.last_hidden_state.index_select(0, batch["prompt_of"])
        mask = batch["attention_mask"].index_select(0, batch["prompt_of"])
        if self.whole_forward:
            encoded.last_hidden_state = states
            output = model(
                encoder_outputs=encoded,
                attention_mask=mask,
                decoder_input_ids=batch["decoder_input_ids"],
                use_cache=False,
            )
            return _at(_logits(output), batch["target_at"])
        decoded = model.get_decoder()(
            input_ids=batch["decoder_input_ids"],
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            use_cache=False,
        )
        return self._head(_at(decoded.last_hidden_state, batch["target_at"]))

    def _head(self, hidden: Tensor) -> Tensor:
        if getattr(self.config, "scale_decoder_outputs", False):  # T5 with tied embeddings
            hidden = hidden * (self.config.d_model**-0.5)
        logits: Tensor = _unwrapped(self.student).get_output_embeddings()(hidden)
        cap = getattr(self.config.get_text_config(), "final_logit_softcapping", None)  # Gemma 2
        return logits if cap is None else torch.tanh(logits / cap) * cap


def weighted_loss(cross_entropy: Tensor, batch: Batch, tasks: int) -> tuple[Tensor, Tensor]:
    """Return L's part of this micro-batch; and, by task and without gradient, its sums of terms and of weights.

        L = L_A + Σ_m α_m L_m = Σ_tokens weight · cross-entropy

    Returns:
        a scalar, and (2, tasks).
    """
    terms = cross_entropy * batch["weights"]
    both = torch.stack([terms.detach(), batch["weights"]])
    return terms.sum(), torch.zeros(2, tasks, device=terms.device).index_add_(1, batch["task_ids"], both)


def decoder_start(model: Any) -> int:
    """Return the token that an encoder-decoder's targets start from."""
    for config in (model.config, model.generation_config):
        start = getattr(config, "decoder_start_token_id", None)
        if start is not None:
            return int(start)
    return int(model.config.pad_token_id)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move every tensor of a batch."""
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _at(states: Tensor, flat: Tensor) -> Tensor:
    """Pick from (B, T, d) the places `flat` of (B·T), giving (N, d)."""
    return states.reshape(-1, states.shape[-1]).index_select(0, flat)


def _unwrapped(model: Any) -> Any:
    """Return the model inside LoRA adapters; they are part of its layers, so they still act."""
    inner: Callable[[], Any] | None = getattr(model, "get_base_model", None)
    return model if inner is None else inner()


def _base(model: Any) -> Any:
    return _unwrapped(model).base_model


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
