"""Models in this process: tiny real encoder-decoders and causal models."""

import asyncio

import pytest
import torch

from support import save_tiny, tiny_tokenizer
from tinyllm import config
from tinyllm.errors import TeacherError
from tinyllm.prompts import Message, Prompt
from tinyllm.teachers import make_teacher
from tinyllm.teachers._local_model import LocalModel, _first_stop
from tinyllm.teachers._transformers import TransformersTeacher
from tinyllm.teachers.base import Reply, Request, RequestFailed, Sampling

GREEDY = Sampling(max_tokens=12, temperature=0.0, top_p=1.0, seed=0)
TEXTS = ["Why?", "Why is the sky blue, and the grass green?", "ice", "Explain the moon to me.", "a b c"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {family: save_tiny(tmp_path_factory.mktemp(family), family, seed=2) for family in ("t5", "llama")}


def spec(folder, **other) -> config.TransformersTeacher:
    return config.TransformersTeacher(
        name="t", kind="transformers", model=str(folder), **{"batch_size": 2, "device": "cpu", **other}
    )


def requests(sampling: Sampling = GREEDY) -> list[Request]:
    return [Request(f"q{n}", Prompt(text=text), sampling) for n, text in enumerate(TEXTS)]


def ask(teacher: TransformersTeacher, asked: list[Request]) -> list[Reply]:
    async def run():
        async with teacher:
            return await asyncio.gather(*(teacher.ask(r) for r in asked), return_exceptions=True)

    return asyncio.run(run())


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_a_batch_says_what_each_prompt_alone_would(folders, family):
    together = ask(TransformersTeacher(spec(folders[family], batch_size=4)), requests())
    alone = [ask(TransformersTeacher(spec(folders[family], batch_size=1)), [r])[0] for r in requests()]
    assert [r.text for r in together] == [r.text for r in alone]
    assert [r.completion_tokens for r in together] == [r.completion_tokens for r in alone]
    assert any(r.text for r in together)
    assert [r.prompt_tokens for r in together] == [len(t.encode()) for t in TEXTS]  # a byte a token
    assert all(r.completion_tokens <= 12 for r in together)
    assert {r.finish_reason for r in together if r.completion_tokens == 12} == {"length"}


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_greedy_replies_are_those_of_the_plain_model(folders, family):
    import transformers

    kind = transformers.AutoModelForSeq2SeqLM if family == "t5" else transformers.AutoModelForCausalLM
    model, tokenizer = kind.from_pretrained(folders[family]).eval(), tiny_tokenizer()
    rows = torch.tensor([tokenizer(TEXTS[1])["input_ids"]])
    out = model.generate(rows, max_new_tokens=12, do_sample=False, attention_mask=torch.ones_like(rows))[0]
    new = out[1:] if family == "t5" else out[rows.shape[1] :]
    (reply,) = ask(TransformersTeacher(spec(folders[family])), requests()[1:2])
    assert reply.text == tokenizer.decode(new, skip_special_tokens=True)


def test_sampling_follows_the_seed_and_leaves_torchs_own_generator_alone(folders):
    def texts(seed: int) -> list[str]:
        sampling = Sampling(max_tokens=20, temperature=1.5, top_p=1.0, seed=seed)
        return [r.text for r in ask(TransformersTeacher(spec(folders["llama"], batch_size=5)), requests(sampling))]

    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    first = texts(1)
    assert torch.equal(torch.rand(1), expected)
    assert texts(1) == first
    assert texts(2) != first


def test_a_reply_ends_before_its_stop_sequence_and_is_not_written_on(folders):
    (free,) = ask(TransformersTeacher(spec(folders["llama"])), requests()[:1])
    mark = free.text[3]
    sampling = Sampling(max_tokens=12, temperature=0.0, top_p=1.0, seed=0, stop=("never", mark))
    (reply,) = ask(TransformersTeacher(spec(folders["llama"])), requests(sampling)[:1])
    assert reply.text == free.text[: free.text.index(mark)]
    assert reply.finish_reason == "stop"
    assert reply.completion_tokens < free.completion_tokens
    assert _first_stop("a\n\nb\nQ", ("\nQ", "\n\n")) == 1


def test_a_prompt_longer_than_the_models_positions_fails_alone(folders):
    long = Request("long", Prompt(text="x" * 4090), GREEDY)
    failed, reply = ask(TransformersTeacher(spec(folders["llama"])), [long, requests()[0]])
    assert isinstance(failed, RequestFailed)
    assert "4102 tokens" in str(failed)
    assert isinstance(reply, Reply)


def test_chat_needs_a_template_and_puts_the_instruction_where_the_template_takes_it(folders, tmp_path):
    with pytest.raises(TeacherError, match="form: completion"):
        LocalModel(spec(folders["llama"], form="chat"))
    save_tiny(tmp_path, "llama")
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    model = LocalModel(spec(tmp_path, form="chat"))
    row = model._encode(Prompt(messages=(Message("system", "Explain."), Message("user", "Why?"))))
    assert tiny_tokenizer().decode(row) == "<user>Explain.\n\nWhy?<assistant>"


@pytest.mark.parametrize(
    ("model", "other", "says"),
    [
        ("no/such-folder-or-model-here", {}, "offline"),
        ("{llama}", {"device": "cuda:77"}, "cuda:77"),
        ("{llama}", {"device": "toaster"}, "toaster"),
        ("{empty}", {}, "config.json"),
        ("{pickle}", {}, "safetensors"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_named_with_the_remedy(folders, tmp_path, monkeypatch, model, other, says):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    pickle = save_tiny(tmp_path / "pickle", "llama")
    (pickle / "model.safetensors").unlink()
    torch.save({}, pickle / "pytorch_model.bin")
    (tmp_path / "empty").mkdir()
    name = model.format(llama=folders["llama"], empty=tmp_path / "empty", pickle=pickle)

    async def run():
        async with TransformersTeacher(spec(name, **other)):
            pass

    with pytest.raises(TeacherError) as caught:
        asyncio.run(run())
    assert "Teacher 't'" in str(caught.value)
    assert says in str(caught.value)


def test_a_failure_in_the_model_reaches_everyone_who_waits(folders, monkeypatch):
    teacher = TransformersTeacher(spec(folders["llama"]))

    def broken(self, asked):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(LocalModel, "generate", broken)
    results = ask(teacher, requests())
    assert [type(r) for r in results] == [ZeroDivisionError] * len(TEXTS)


def test_leaving_cancels_waiting_requests(folders):
    async def run():
        teacher = TransformersTeacher(spec(folders["llama"]))
        async with teacher:
            waiting = [asyncio.create_task(teacher.ask(r)) for r in requests()]
            await asyncio.sleep(0)
        done, pending = await asyncio.wait(waiting, timeout=5)
        with pytest.raises(TeacherError, match="not running"):
            await teacher.ask(requests()[0])
        return len(done), len(pending)

    assert asyncio.run(run()) == (len(TEXTS), 0)


def test_identity_is_the_folders_content_or_the_hubs_name(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    one = make_teacher(spec(folders["llama"]), [])
    copy = make_teacher(spec(save_tiny(tmp_path / "copy", "llama", seed=2), batch_size=7), [])
    other = make_teacher(spec(save_tiny(tmp_path / "other", "llama", seed=1)), [])
    assert one.identity == copy.identity != other.identity
    hub = make_teacher(spec("owner/name", revision="abc"), [])
    assert hub.identity == {"kind": "transformers", "model": "owner/name", "revision": "abc", "dtype": "float32"}
    assert (hub.stored, hub.local, hub.concurrency) == (True, True, 4)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_options_are_as_likely_as_the_plain_model_finds_them(folders, family):
    import json

    options = (" ice", " a longer one", " b")
    asked = [Request(r.question_id, r.prompt, r.sampling, options=options) for r in requests()]
    found = ask(TransformersTeacher(spec(folders[family], batch_size=4)), asked)
    model = LocalModel(spec(folders[family]))._model
    tokenizer = tiny_tokenizer()
    for text, reply in zip(TEXTS, found, strict=True):
        scores = json.loads(reply.message)["option_logprobs"]
        prompt = tokenizer(text)["input_ids"]
        for option, (total, tokens) in zip(options, scores, strict=True):
            target = tokenizer(option, add_special_tokens=False)["input_ids"]
            if family == "t5":
                out = model(input_ids=torch.tensor([prompt]), labels=torch.tensor([target]))
                loss = out.loss
            else:
                row = torch.tensor([prompt + target])
                labels = torch.tensor([[-100] * len(prompt) + target])
                loss = model(input_ids=row, labels=labels).loss
            assert tokens == len(target)
            assert total == pytest.approx(-loss.item() * tokens, abs=1e-4)
