"""Loading and saving students: what is not there, or not whole, is said."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file, save_file

from support import save_tiny, tiny_student
from tinyllm.config import StudentSection
from tinyllm.errors import StudentError
from tinyllm.student.model import StudentCard, load_student, load_tokenizer, read_student, save_student

CARD = StudentCard(prefixes={"answer": "predict: "})


def test_a_folder_is_loaded_and_its_kind_is_seen(tmp_path):
    folder = save_tiny(tmp_path / "t5", "t5")
    assert load_student(StudentSection(model=str(folder)), CARD).is_encoder_decoder
    assert load_tokenizer(StudentSection(model=str(folder)))[1].is_encoder_decoder


def test_missing_weights_are_not_made_up(tmp_path):
    folder = save_tiny(tmp_path / "llama", "llama")
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StudentError, match=r"lacks weights \(model.layers.1.mlp.up_proj.weight"):
        load_student(StudentSection(model=str(folder)), CARD)


def test_a_damaged_file_is_an_error_not_a_traceback(tmp_path):
    folder = save_tiny(tmp_path / "llama", "llama")
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(StudentError, match="cannot load"):
        load_student(StudentSection(model=str(folder)), CARD)
    (tmp_path / "no.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(StudentError, match="GGUF"):
        load_student(StudentSection(model=str(tmp_path / "no.gguf")), CARD)


def test_pickled_weights_are_refused(tmp_path):
    import torch

    folder = save_tiny(tmp_path / "llama", "llama")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(StudentError, match="cannot load"):
        load_student(StudentSection(model=str(folder)), CARD)


def test_a_saved_student_is_a_plain_transformers_model(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    student = tiny_student("llama")
    save_student(student, tmp_path / "student", "# a card")
    save_student(student, tmp_path / "student", "# another card")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "student").config.model_type == "llama"
    assert AutoTokenizer.from_pretrained(tmp_path / "student").eos_token == "</s>"
    assert (tmp_path / "student" / "README.md").read_text(encoding="utf-8") == "# another card"
    assert read_student(tmp_path / "student").card == student.card
    assert [f.name for f in tmp_path.iterdir()] == ["student"]


def test_a_folder_without_a_student(tmp_path):
    with pytest.raises(StudentError, match=r"holds no student .* `tinyllm train` trains one"):
        read_student(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(StudentError, match="its training has not ended"):
        read_student(tmp_path)


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("Ice is cold.", "Ice is cold."),
        ("Ice is cold.\nIt melts.", "Ice is cold.\nIt melts."),
        ("Ice is cold.\nexplain as gemma4: Ice is", "Ice is cold."),
        ("Ice is cold.\npredict: ice", "Ice is cold."),
        ("Ice is cold.\n\nQuestion: Which is warm?", "Ice is cold."),
        ("It measures heat.\n\nThe answer is: bob", "It measures heat."),
        ("It is:\n\nIt is:\n\nIt is:", "It is:"),
        ("explain as Ada asked: ice is cold.", "explain as Ada asked: ice is cold."),
        ("Ask bob: he knows.\nHe is in:\nbob's house", "Ask bob: he knows.\nHe is in:\nbob's house"),
        ("", ""),
    ],
)
def test_what_belongs_to_the_next_prompt_is_no_part_of_a_rationale(text, own):
    assert tiny_student("llama").card.own_rationale(text) == own


def test_a_rationale_has_ended_by_its_whole_lines_only():
    card = tiny_student("llama").card
    assert card.has_ended("Ice.\nexplain as eve: x\n")
    assert not card.has_ended("Ice.\nexplain as eve: x")
    assert not card.has_ended("Yes\nYes")  # it may go on: `Yes, because`
    assert not card.has_ended("Ice.\nIt is cold.\n")
