"""Exports: other programs answer as the student does, or the export is refused; and a folder stands in for a run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tinyllm
from support import some_questions, tiny_student
from tinyllm.errors import StudentError
from tinyllm.export import compare, open_export, write_export
from tinyllm.scoring.runtime import TorchRuntime

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
        pytest.param("t5", "onnx", "fp32", marks=pytest.mark.slow),
        pytest.param("llama", "onnx", "int8", marks=pytest.mark.slow),
    ],
)
def test_an_export_answers_as_the_student_does(tmp_path, family, kind, precision):
    pytest.importorskip({"gguf": "xllamacpp", "onnx": "onnxruntime", "ctranslate2": "ctranslate2"}.get(kind, "torch"))
    runtime = open_export(exported(tmp_path / "out", family, kind, precision))
    student = tiny_student(family, width=32)
    student.card = replace(student.card, temperature=1.5)
    own = TorchRuntime(student)
    found = compare(own, runtime, QUESTIONS, precision)
    assert found.holds, found
    assert found.same_tokens is (True if kind == "gguf" else None)
    close = {"fp32": 1e-4, "f32": 1e-3, "f16": 2e-2}.get(precision)
    if close is not None:
        for one, other in zip(own.scores(QUESTIONS), runtime.scores(QUESTIONS), strict=True):
            assert other.total == pytest.approx(one.total, abs=close)
            assert other.unended == pytest.approx(one.unended, abs=close)
    if precision in ("fp32", "f32"):
        assert runtime.texts(QUESTIONS[:2], "bob", 6) == own.texts(QUESTIONS[:2], "bob", 6)


def test_an_export_takes_the_place_of_a_run(tmp_path):
    folder = exported(tmp_path / "out", "llama", "merged", "fp32")
    own = TorchRuntime(tiny_student("llama", width=32))
    loaded = tinyllm.load(folder)
    for question, scores in zip(QUESTIONS, own.scores(QUESTIONS), strict=True):
        assert loaded.choose(question.question, question.choices).choice == scores.best
    assert "transformers" in (folder / "README.md").read_text()


@pytest.mark.parametrize(("kind", "relative"), [("Q4_K", 0.08), ("Q6_K", 0.02), ("Q5_0", 0.05), ("Q8_0", 0.006)])
def test_blocks_of_weights_are_read_back_as_what_they_were(kind, relative):
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


def test_what_answers_otherwise_is_found():
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


def test_what_cannot_be_written_is_told(tmp_path):
    with pytest.raises(StudentError, match="of type 't5'; known: llama, qwen2, qwen3"):
        exported(tmp_path / "out", "t5", "gguf", "f16")


def test_the_command_writes_the_folder_and_its_report_and_refuses_what_differs(cli, project, tiny_llama, monkeypatch):
    project.change("student", {"model": str(tiny_llama)})
    project.change("teachers", [])
    project.change("train.method", "fine-tuning")
    assert cli("train", project.config, "-q").code == 0
    said = cli("export", project.run, "--to", "gguf", "--json")
    assert said.code == 0, said.err
    folder = project.run / "export" / "gguf-f16"
    report = json.loads((folder / "parity.json").read_text())
    assert report == json.loads(said.out)
    assert (report["questions"], report["holds"], report["same_tokens"]) == (20, True, True)
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
    assert "Say with --run-dir" in cli("evaluate", elsewhere).err
    assert json.loads(cli("evaluate", elsewhere, "--run-dir", project.run, "--json").out) == beside
    assert "is there already" in cli("export", project.run, "--to", "gguf").err
    assert "merged: fp32, bf16; gguf: f16" in cli("export", project.run, "--to", "ggml").err
    monkeypatch.setattr("tinyllm.export._parity._TOLERANCES", {"fp32": (-1.0, 0.0)})
    said = cli("export", project.run, "--to", "merged")
    assert (said.code, "does not answer as the student does" in said.err) == (2, True)
    assert (project.run / "export" / "merged-fp32.refused" / "parity.json").is_file()
    assert not (project.run / "export" / "merged-fp32").exists()
