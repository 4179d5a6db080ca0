"""A model with two layers and the architecture of a student, to check the student before it is loaded."""

from __future__ import annotations

import copy
from typing import Any

import torch

from tinyllm.errors import StudentError
from tinyllm.student._positions import Positions, positions_of
from tinyllm.student._ways import UNFIT, from_config
from tinyllm.student.learner import Learner

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers")
_LAYERS_OF_PARTS = ("encoder_layers", "decoder_layers")
_WORDS = 1024


def check_architecture(model_config: Any) -> Positions:
    """Check that a student's architecture can learn answers, and return its positions.

    Raises:
        StudentError: it sees the tokens that it has to predict.
    """
    try:
        model = _sketch(model_config)
        learner = Learner(model, pad=0)
    except (*UNFIT, StudentError):  # some configurations cannot be cut down: the whole model is looked at later
        try:
            with torch.device("meta"):
                return positions_of(from_config(model_config))
        except UNFIT:
            return Positions(model_config.model_type)
    learner.refuse_if_it_sees_ahead()
    return learner.positions


def _sketch(model_config: Any) -> Any:
    small = copy.deepcopy(model_config)
    for config in {id(c): c for c in (small, small.get_text_config())}.values():
        for name in (*_LAYERS, *_LAYERS_OF_PARTS):
            if isinstance(getattr(config, name, None), int):
                setattr(config, name, min(2, getattr(config, name)))
        if (kinds := getattr(config, "layer_types", None)) is not None:
            config.layer_types = kinds[:2]
        if isinstance(getattr(config, "vocab_size", None), int):
            config.vocab_size = min(config.vocab_size, _WORDS)
        for name, token in list(vars(config).items()):
            if name.endswith("token_id") and isinstance(token, int) and token >= _WORDS:
                setattr(config, name, 0)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return from_config(small).eval()
