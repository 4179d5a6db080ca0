"""Exports: an export gives the answers of the student or is refused, and its folder can be used like a run."""

from __future__ import annotations

import importlib.util
import json
import logging
import shlex
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import jinja2
import pytest
import torch

import tinyllm
import tinyllm.system.news
from support import some_questions, tiny_student
from tinyllm.errors import StudentError
from tinyllm.export import compare, open_export, write_export
from tinyllm.export._gguf import chat_template
from tinyllm.export._readme import around_a_message
from tinyllm.scoring.runtime import TorchRuntime
from tinyllm.student.model import CARD_FILE

QUESTIONS = some_questions(12)


def exported(folder: Path, family: str, kind: str, precision: str, width: int = 32) -> Path:
    student = tiny_student(family, width=width)
    student.card = replace(student.card, temperature=1.5)
    write_export(student, folder, kind, precision, "mine", QUESTIONS[0])
    return folder


@pytest.mark.parametrize(
    ("family", "kind", "precision"),
    [
        ("llama", "merged", "fp32"),
        ("t5", "merged", "fp32"),
        ("llama", "gguf", "f32"),
        ("llama", "gguf", "f16"),
        ("llama", "gguf", "q8_0"),
        ("llama", "gguf", "q4_k_m"),
        ("qwen2", "gguf", "f16"),
        ("llama", "onnx", "fp32"),
        ("t5", "ctranslate2", "fp32"),
        ("t5", "ctranslate2", "int8"),
        ("llama", "openvino", "fp32"),
        ("llama", "openvino", "int8"),
        ("t5", "openvino", "f16"),
        pytest.param("qwen2", "openvino", "f16", marks=pytest.mark.slow),
        pytest.param("t5", "openvino", "fp32", marks=pytest.mark.slow),
        pytest.param("t5", "openvino", "int8", marks=pytest.mark.slow),
        pytest.param("t5", "onnx", "fp32", marks=pytest.mark.slow),
        pytest.param("llama", "onnx", "int8", marks=pytest.mark.slow),
    ],
)
def test_an_export_gives_the_answers_of_the_student(tmp_path, caplog, family, kind, precision):
    needed = {"gguf": "xllamacpp", "onnx": "onnxruntime"}.get(kind, kind if kind != "merged" else "torch")
    if importlib.util.find_spec(needed) is None:  # importing OpenVINO here would report to Intel
        pytest.skip(f"{needed} is not installed")
    runtime = open_export(exported(tmp_path / "out", family, kind, precision))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    student = tiny_student(family, width=32)
    student.card = replace(student.card, temperature=1.5)
    own = TorchRuntime(student)
    told: list[int] = []
    found = compare(own, runtime, QUESTIONS, precision, lambda done, total, note: told.append(done))
    assert found.holds, found
    assert max(told) == told[-1] == len(QUESTIONS), "each program counts by itself"
    assert kind not in ("gguf", "onnx", "openvino") or {*told} >= {1, 2, 3, 11}  # each question counts
    assert found.same_tokens is (True if kind == "gguf" else None)
    close = {"fp32": 1e-4, "f32": 1e-3, "f16": 2e-2}.get(precision)
    if close is not None:
        for one, other in zip(own.scores(QUESTIONS), runtime.scores(QUESTIONS), strict=True):
            assert other.total == pytest.approx(one.total, abs=close, rel=close / 100)  # a long text adds many up
            assert other.unended == pytest.approx(one.unended, abs=close, rel=close / 100)
    if precision in ("fp32", "f32"):
        assert runtime.texts(QUESTIONS[:2], "bob", 6) == own.texts(QUESTIONS[:2], "bob", 6)
    assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]


def test_8_bit_weights_keep_the_scores_where_one_feature_is_much_larger_than_the_others(tmp_path):
    pytest.importorskip("onnxruntime")

    def student():
        made = tiny_student("llama", width=128)
        with torch.no_grad():  # the same function, with an outlier among the activations, as trained models have them
            for layer in made.model.model.layers:
                readers = layer.mlp.gate_proj, layer.mlp.up_proj
                for norm, read in (
                    (layer.post_attention_layernorm, readers),
                    (layer.input_layernorm, _attention(layer)),
                ):
                    norm.weight[3] *= 30
                    for linear in read:
                        linear.weight[:, 3] /= 30
        return made

    write_export(student(), tmp_path / "out", "onnx", "int8", "mine", QUESTIONS[0])
    for one, other in zip(
        TorchRuntime(student()).scores(QUESTIONS), open_export(tmp_path / "out").scores(QUESTIONS), strict=True
    ):
        assert other.total == pytest.approx(one.total, abs=0.1)


def _attention(layer):
    return layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj


@pytest.mark.parametrize("layout", ["cloze", "labelled", "release"])
def test_a_message_in_ollama_becomes_exactly_the_prompt_of_the_student(tmp_path, layout):
    student = tiny_student("llama", width=32)
    student.card = replace(student.card, layout=layout)
    asked = replace(QUESTIONS[0], question='Which is "Pluto\'s" moon?')
    write_export(student, tmp_path / "out", "gguf", "f16", "mine", asked)
    readme = (tmp_path / "out" / "README.md").read_text("utf-8")
    by_curl, by_ollama = (
        shlex.split(readme.partition(word)[2].partition("\n```")[0]) for word in ("curl", "ollama run")
    )
    template = (tmp_path / "out" / "Modelfile").read_text("utf-8").split('"""')[1]
    made = template.replace("{{ .Prompt }}", by_ollama[1])
    prompt = student.encoder().generation_prompt(asked, student.card.prefixes["answer"])
    assert student.tokenizer(made).input_ids == [*prompt]
    assert json.loads(by_curl[-1])["prompt"] == made
    chat = chat_template(*around_a_message(student.card))
    assert jinja2.Template(chat).render(messages=[{"role": "user", "content": by_ollama[1]}]) == made
    assert ("(a) " in made, "The prompt has no choices and starts with `Question: `." in readme) == (
        layout != "cloze", layout == "cloze",
    )  # fmt: skip


def test_an_export_can_be_loaded_like_a_run(tmp_path):
    folder = exported(tmp_path / "out", "llama", "merged", "fp32")
    own = TorchRuntime(tiny_student("llama", width=32))
    loaded = tinyllm.load(folder)
    for question, scores in zip(QUESTIONS, own.scores(QUESTIONS), strict=True):
        assert loaded.choose(question.question, question.choices).choice == scores.best
    assert "transformers" in (folder / "README.md").read_text()


@pytest.mark.parametrize(("kind", "relative"), [("Q4_K", 0.08), ("Q6_K", 0.02), ("Q5_0", 0.05), ("Q8_0", 0.006)])
def test_quantised_weights_are_close_to_the_original_weights(kind, relative):
    import gguf
    import numpy as np

    from tinyllm.export._gguf import _quantised

    weights = np.random.default_rng(0).normal(size=(6, 1024)).astype(np.float32)
    weights[0, :256], weights[1, :32] = 0.0, 3.0
    of = gguf.GGMLQuantizationType[kind]
    back = gguf.quants.dequantize(_quantised(weights, of), of)
    assert back.shape == weights.shape
    assert np.sqrt(((back - weights) ** 2).mean() / (weights**2).mean()) < relative


def test_a_damaged_export_is_refused(tmp_path):
    folder = exported(tmp_path / "out", "llama", "gguf", "f16")
    content = bytearray((folder / "student.gguf").read_bytes())
    content[-1] ^= 1
    (folder / "student.gguf").write_bytes(content)
    with pytest.raises(StudentError, match=r"student\.gguf is damaged or was replaced"):
        tinyllm.load(folder)


@pytest.mark.parametrize("damage", [{"export": {}}, {"export": "gguf"}, {"prefixes": None}, {"sha256": None}])
def test_a_damaged_card_of_an_export_is_one_message(tmp_path, damage):
    card = {"export": {"format": "gguf"}, "sha256": {}, "prefixes": {}, "layout": "cloze", "max_input_tokens": 64}
    card |= {"temperature": 1.0} | damage
    (tmp_path / CARD_FILE).write_text(json.dumps({k: v for k, v in card.items() if v is not None}))
    with pytest.raises(StudentError, match=r"is damaged .*Export the student again"):
        tinyllm.load(tmp_path)


def test_scores_that_are_not_numbers_are_refused():
    own, broken = TorchRuntime(tiny_student("llama")), TorchRuntime(tiny_student("llama"))
    scores = own.scores(QUESTIONS)
    broken.scores = lambda *_: [*scores[:-1], replace(scores[-1], total=(float("nan"),) * len(scores[-1].total))]
    with pytest.raises(StudentError, match="not numbers for 1 of 12 questions"):
        compare(own, broken, QUESTIONS, "fp32")


def test_the_tokens_of_contexts_are_compared():
    own, exported = TorchRuntime(tiny_student("llama")), TorchRuntime(tiny_student("llama"))
    exported.tokens = lambda text: own.encoder.text("other" if text == "Ice is cold." else text)
    assert compare(own, exported, QUESTIONS, "fp32").same_tokens
    assert not compare(own, exported, [replace(QUESTIONS[0], context="Ice is cold.")], "fp32").same_tokens


@pytest.mark.parametrize(("ties", "holds"), [(1, True), (2, False)])
def test_one_near_tie_of_few_questions_refuses_no_export(ties, holds):
    own, other = TorchRuntime(tiny_student("llama")), TorchRuntime(tiny_student("llama"))
    scores = own.scores(QUESTIONS)

    def tied(first, second):
        return [replace(s, total=(first, second, *(-9.0 for _ in s.total[2:]))) for s in scores[:ties]] + scores[ties:]

    own.scores, other.scores = (lambda *_: tied(0.0, 1e-4)), (lambda *_: tied(1e-4, 0.0))
    found = compare(own, other, QUESTIONS, "fp32")
    assert (found.differing, found.holds) == (ties, holds)


def test_other_answers_are_beyond_the_tolerance():
    alike = [replace(q, choices=("ice", "fog", "sun", "dew")) for q in QUESTIONS]  # of one length: it does not decide
    own, other = tiny_student("llama"), tiny_student("llama", seed=1)
    found = compare(TorchRuntime(own), TorchRuntime(other), alike, "fp32")
    assert not found.holds
    assert found.differing > 0
    assert found.change.n == found.questions == 12
    nearly = tiny_student("llama")
    with torch.no_grad():
        next(nearly.model.parameters()).add_(1e-7)
    assert compare(TorchRuntime(own), TorchRuntime(nearly), QUESTIONS, "fp32").holds
    deaf = TorchRuntime(own)
    deaf.tokens = lambda text: (1, 2, 3)
    assert not compare(TorchRuntime(own), deaf, QUESTIONS, "fp32").holds


def test_an_unsupported_architecture_is_refused(tmp_path):
    with pytest.raises(StudentError, match=r"of type 't5'\. Supported: llama, qwen2, qwen3"):
        exported(tmp_path / "out", "t5", "gguf", "f16")


def test_the_command_writes_a_folder_with_a_report_and_refuses_other_answers(cli, project, tiny_llama, monkeypatch):
    project.change("student", {"model": str(tiny_llama)})
    project.change("teachers", [])
    project.change("train.method", "fine-tuning")
    assert cli("train", project.config, "-q").code == 0
    said = cli("export", project.run, "--to", "gguf", "--json")
    assert said.code == 0, said.err
    folder = project.run / "export" / "gguf-f16"
    report = json.loads((folder / "parity.json").read_text())
    assert {"folder": str(folder)} | report == json.loads(said.out)
    assert (report["questions"], report["holds"], report["same_tokens"], report["learnt"]) == (20, True, True, 14)
    assert {"README.md", "Modelfile", "student.gguf", "tinyllm.json", "tokenizer.json"} <= {
        f.name for f in folder.iterdir()
    }
    assert "Question: Which is number" in (folder / "README.md").read_text()
    done = json.loads(cli("predict", folder, project.questions, "-o", "out.jsonl", "--json").out)
    assert (done["rows"], done["answered"]) == (20, 20)
    alone = json.loads(cli("evaluate", folder, "--json").out)
    assert (alone["runtime"], alone["accuracy"]["n"], alone["run"], alone["change"]) == ("llama.cpp", 6, None, None)
    assert cli("evaluate", project.run, "-q").code == 0
    beside = json.loads(cli("evaluate", folder, "--json").out)
    own = json.loads((project.run / "metrics.json").read_text())["accuracy"]["likelihood"]
    assert (beside["run"]["value"], beside["run"]["n"]) == (own["value"], own["n"])
    assert (beside["change"]["fixed"], beside["change"]["broken"]) == (0, 0)
    assert json.loads((folder / "metrics.json").read_text()) == beside
    assert "the run's own student" in cli("evaluate", folder).out
    elsewhere = Path(shutil.copytree(folder, project.folder / "elsewhere"))
    assert "is not inside a run folder" in cli("evaluate", elsewhere).err
    assert json.loads(cli("evaluate", elsewhere, "--run-dir", project.run, "--json").out) == beside
    said = cli("export", project.run, "--to", "merged", "--out", "merged")
    assert "(20 questions, 14 of them used in training or to choose settings)" in said.out, said.err
    assert "exists already" in cli("export", project.run, "--to", "gguf").err
    assert "merged: fp32, bf16; gguf: f16" in cli("export", project.run, "--to", "ggml").err
    elsewhere = project.folder / "other"
    said = cli("export", project.run, "--to", "merged", "--out", elsewhere).out
    size = sum(file.stat().st_size for file in elsewhere.iterdir()) / 1e6
    assert f"Export: {elsewhere} ({size:.0f} MB)\n" in said
    monkeypatch.setattr("tinyllm.export._parity._TOLERANCES", {"fp32": (0.0, -1.0)})
    said = cli("export", project.run, "--to", "merged")
    assert (said.code, "gives other answers than the student" in said.err) == (2, True)
    assert (project.run / "export" / "merged-fp32.refused" / "parity.json").is_file()
    assert not (project.run / "export" / "merged-fp32").exists()

    def interrupted(*_: object) -> None:
        time.sleep(0.1)
        raise StudentError("enough")

    monkeypatch.setattr(tinyllm.system.news, "_LINE_EVERY_S", 0.01)
    monkeypatch.setattr("tinyllm.export.write_export", interrupted)
    assert "tracing and rounding" in cli("export", project.run, "--to", "onnx", "--quantize", "int8").err
