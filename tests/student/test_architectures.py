"""Architectures are exact, in any company, or refused: a short form of `make test-architectures`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from benchmarks.architectures import VARIANTS, examined
from benchmarks.tiny import POSITIONS, tiny_architecture, tiny_config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projects import Project
from support import tiny_tokenizer
from tinyllm.config import LoraSection, load_config
from tinyllm.errors import StudentError
from tinyllm.scoring._passes import branch_scores
from tinyllm.stages.check import checked_questions
from tinyllm.student import _verify
from tinyllm.student._positions import Bound, bounds, positions_of
from tinyllm.student._ways import ALONE, Way
from tinyllm.student.encode import Branch, Row
from tinyllm.student.generation import _continued, _groups_of
from tinyllm.student.learner import Learner
from tinyllm.student.model import Student, StudentCard, add_lora
from tinyllm.student.sketch import check_architecture
from tinyllm.system.news import News

LONGEST = 80
CAUSAL, SEQ2SEQ = "causal", "encoder-decoder"


def overrides_of(name: str, variant: str):
    return next((o for _, n, v, o in VARIANTS if (n, v) == (name, variant)), None)


@pytest.mark.parametrize(
    ("kind", "name", "variant", "verdict"),
    [
        (CAUSAL, "llama", "", "equal"),
        (CAUSAL, "llama", "dynamic RoPE", "own rows"),
        (CAUSAL, "phi3", "long RoPE", "own rows"),
        (CAUSAL, "gemma2", "", "equal"),
        (CAUSAL, "opt", "", "equal"),
        (CAUSAL, "llama4_text", "", "equal"),
        (CAUSAL, "doge", "", "own rows"),
        (CAUSAL, "mamba", "", "equal"),
        (CAUSAL, "roberta", "", "refused"),
        (CAUSAL, "roberta", "is_decoder", "equal"),
        (CAUSAL, "xlnet", "", "refused"),
        (CAUSAL, "reformer", "", "refused"),  # it trains on rows of one length only
        (CAUSAL, "blt", "", "equal"),
        (SEQ2SEQ, "fsmt", "", "own rows"),
        (SEQ2SEQ, "t5gemma", "", "equal"),  # its targets start from the beginning of a sequence, not from padding
        (SEQ2SEQ, "switch_transformers", "", "equal"),
        (SEQ2SEQ, "bart", "", "equal"),
    ],
    ids=lambda value: str(value),
)
def test_an_architecture_gives_what_plain_rows_give_past_its_window(kind, name, variant, verdict):
    found = examined(kind, name, variant, overrides_of(name, variant))
    assert found.verdict == verdict, found
    if name == "llama4_text":
        assert found.way == "padded, shared prompts", "the chunks have a mask of their own"


PROPERTY = {
    name: (kind, type_, variant)
    for name, kind, type_, variant in (
        ("llama", CAUSAL, "llama", ""),
        ("gemma3", CAUSAL, "gemma3_text", ""),
        ("dynamic RoPE", CAUSAL, "llama", "dynamic RoPE"),
        ("llama4", CAUSAL, "llama4_text", ""),
        ("switch", SEQ2SEQ, "switch_transformers", ""),
    )
}


@pytest.fixture(scope="module", params=PROPERTY)
def learner(request) -> Learner:
    kind, name, variant = PROPERTY[request.param]
    made = Learner(tiny_architecture(name, kind, overrides_of(name, variant)), pad=0)
    made.verify(LONGEST)
    return made


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 20), st.integers(1, 9)), min_size=2, max_size=5),
    budget=st.sampled_from([16, 100, 300, 4096]),
    seed=st.integers(0, 9),
)
def test_batch_size_budget_and_company_never_change_a_score(learner, lengths, budget, seed):
    draw = torch.Generator().manual_seed(seed)
    some = lambda n: tuple(torch.randint(3, 259, (n,), generator=draw).tolist())  # noqa: E731
    rows = [Row("", some(p), (Branch("a", (), some(t)), Branch("b", (), some(u)))) for p, t, u in lengths]
    of_question = [[r] if learner.share_prompt and not learner.is_encoder_decoder else r.apart() for r in rows]
    found = branch_scores(learner, of_question, budget)
    way = learner.way
    learner.take(ALONE)
    alone = [branch_scores(learner, [r.apart()], 4096)[0] for r in rows]
    learner.take(way)
    for ours, plain in zip(found, alone, strict=True):
        for name in plain:
            assert ours[name].total == pytest.approx(plain[name].total, rel=1e-4, abs=1e-4)


def test_hashes_that_are_random_past_a_chunk_are_named_as_such():
    found = Learner(tiny_architecture("reformer", CAUSAL, {"axial_pos_embds": False}), pad=0)
    with pytest.raises(StudentError, match="gives other scores each time it reads the same tokens"):
        found.verify(LONGEST, learns=False)


def test_a_budget_of_tokens_is_a_length_past_which_a_model_computes_otherwise():
    config = tiny_config("qwen4_exp_text", {"indexer_budget": 40})
    assert Bound(40, "indexer_budget") in bounds(config)


def test_parts_of_a_model_get_their_own_attention_back():
    model = tiny_architecture("vibevoice_asr", SEQ2SEQ)
    parts = model.config.text_config, model.config.acoustic_tokenizer_encoder_config
    kinds = [part._attn_implementation for part in parts]
    assert kinds == ["sdpa", "eager"]
    found = Learner(model, pad=0)
    found.take(Way())
    found.take(ALONE)
    assert [part._attn_implementation for part in parts] == kinds


# --- generation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "variant", "company"),
    [("rwkv", "", "none"), ("phi3", "long RoPE", "of one length"), ("llama", "", "any"), ("blt", "", "of one length")],
)
def test_what_is_written_in_company_is_what_is_written_alone(name, variant, company):
    model = tiny_architecture(name, CAUSAL, overrides_of(name, variant))
    student = Student(model, SimpleNamespace(pad_token_id=0), StudentCard({}))
    prompts = [tuple(range(3 + n, 3 + 2 * n)) for n in (4, 40, 9, 9, 21)]
    groups = _groups_of(student, 1, prompts, [4] * len(prompts), 4096)
    assert set(student.company.values()) == {company}
    assert sorted(i for g in groups for i in g) == list(range(len(prompts)))
    for group in groups:
        for i, found in zip(group, _continued(student, 1, [prompts[i] for i in group], 4), strict=True):
            assert found == _continued(student, 1, [prompts[i]], 4)[0]


# --- attention ----------------------------------------------------------------------------------------------------


def test_a_window_in_every_layer_holds_in_padded_rows_with_shared_prompts():
    found = Learner(tiny_architecture("mistral", CAUSAL), pad=0)
    found.verify(LONGEST)
    assert found.way == Way()
    found.take(Way(packed=False))  # as on a GPU with attention dropout
    rows = [Row("", tuple(range(5, 35)), (Branch("a", (), (40, 41, 42)), Branch("b", (50,), (51, 52))))]
    padded = branch_scores(found, [rows], 4096)[0]
    found.take(ALONE)
    alone = branch_scores(found, [rows[0].apart()], 4096)[0]
    assert padded["a"].total == pytest.approx(alone["a"].total, rel=1e-5)
    assert padded["b"].total == pytest.approx(alone["b"].total, rel=1e-5)


@pytest.mark.parametrize("field", ["attn_pdrop", "attention_dropout"])
def test_rows_are_not_packed_where_attention_dropout_would_be_lost(monkeypatch, field):
    monkeypatch.setattr(_verify, "drops_scores", lambda _: False)
    monkeypatch.setattr("tinyllm.student._attention.drops_scores", lambda _: False)
    model = tiny_architecture("gpt2" if field == "attn_pdrop" else "llama", CAUSAL)
    for config in (model.config,):
        setattr(config, field, 0.1)
    for module in model.modules():
        if isinstance(getattr(module, "attn_dropout", None), torch.nn.Dropout):
            module.attn_dropout.p = 0.1
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.1
    found = Learner(model, pad=0)
    found.verify(LONGEST)
    assert not found.way.packed
    answers = Learner(model, pad=0)
    answers.verify(LONGEST, learns=False)
    assert answers.way.packed, "who only answers drops nothing"


# --- before anything is spent ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        (CAUSAL, "gpt2", POSITIONS), (CAUSAL, "opt", POSITIONS), (CAUSAL, "llama", None), (CAUSAL, "gptj", POSITIONS),
        (CAUSAL, "ctrl", POSITIONS), (SEQ2SEQ, "bart", POSITIONS), (SEQ2SEQ, "t5", None), (SEQ2SEQ, "m2m_100", None),
    ],
)  # fmt: skip
def test_positions_are_read_off_the_model(kind, name, expected):
    positions = positions_of(tiny_architecture(name, kind))
    assert positions.prompt == expected


def test_a_row_beyond_the_positions_is_an_error_and_no_index_error():
    found = Learner(tiny_architecture("gpt2", CAUSAL), pad=0)
    found.verify(LONGEST)
    row = Row("", tuple(range(3, 100)), (Branch("a", (), (5, 6)),))
    with pytest.raises(StudentError, match=rf"has {POSITIONS} positions, and 98 are needed.*train.max_input_tokens"):
        branch_scores(found, [[row]], 4096)


def test_a_model_that_sees_ahead_is_refused_from_its_configuration():
    model = tiny_architecture("roberta", CAUSAL)
    with pytest.raises(StudentError, match=r"sees the tokens that it is to predict.*is_decoder"):
        check_architecture(model.config)
    model.config.is_decoder = True
    assert check_architecture(model.config).prompt == POSITIONS - 1


@pytest.mark.parametrize(("name", "target"), [("gpt2", "lm_head"), ("gpt2", "wte"), ("llama", "embed_tokens")])
def test_adapters_on_tied_weights_are_refused_before_training(name, target):
    model = tiny_architecture(name, CAUSAL, {"tie_word_embeddings": True})
    student = Student(model, SimpleNamespace(pad_token_id=0), StudentCard({}))
    with pytest.raises(StudentError, match=rf"{target} cannot have an adapter.*the same weights"):
        add_lora(student, LoraSection(targets=(target,)), 0)


def test_adapters_on_all_linear_layers_leave_tied_weights_out():
    model = tiny_architecture("llama", CAUSAL, {"tie_word_embeddings": True})
    model.model.second_head = torch.nn.Linear(32, 259, bias=False)  # not the one that transformers knows of
    model.model.second_head.weight = model.model.embed_tokens.weight
    student = Student(model, SimpleNamespace(pad_token_id=0), StudentCard({}))
    add_lora(student, LoraSection(), 0)
    adapted = {n.split(".lora_")[0] for n, _ in student.model.named_parameters() if "lora" in n}
    assert adapted
    assert not any("head" in n or "embed" in n for n in adapted)


def checked(tmp_path, name: str, overrides=None, **settings):
    folder = tmp_path / name
    model = tiny_architecture(name, CAUSAL, overrides)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    project = Project(tmp_path, folder)
    for path, value in settings.items():
        project.change(path.replace("__", "."), value)
    return checked_questions(load_config(project.config), News(quiet=True))


def test_check_refuses_too_few_positions_and_says_what_to_set(tmp_path):
    with pytest.raises(StudentError, match=r"has 160 positions, and 3\d\d are needed.*Lower train.max_input_tokens or"):
        checked(tmp_path, "gpt2", {"n_positions": 160})
    splits, _ = checked(tmp_path, "gpt2", {"n_positions": 160}, train__max_target_tokens=12)
    assert len(splits.train), "short questions fit, whatever the longest input might be"


def test_check_refuses_an_architecture_that_sees_ahead(tmp_path):
    with pytest.raises(StudentError, match="sees the tokens that it is to predict"):
        checked(tmp_path, "roberta")


def test_check_notes_rows_beyond_the_length_that_positions_were_trained_for(tmp_path, capsys):
    folder = tmp_path / "llama"
    tiny_architecture("llama", CAUSAL).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    checked_questions(load_config(Project(tmp_path, folder).config), News())
    assert f"the student was trained with {POSITIONS} at most" in capsys.readouterr().err
