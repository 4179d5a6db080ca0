"""A refusal is recognised by its first words. An explanation that something is impossible is no refusal."""

import json

import pytest

from support import repository
from tinyllm.rationales._refusal import is_refusal

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I can’t assist with that request.",
    "Sorry, I can't help with that.",
    "I am sorry but I am unable to provide an explanation for this question.",
    "I'm sorry, but as an AI language model, I cannot give medical advice.",
    "I apologize, but I cannot fulfill your request. I'm just an AI.",
    "My apologies, but I am not able to answer this.",
    "I sincerely apologize for the confusion, but I cannot explain this.",
    "I'm afraid I can't do that.",
    "I cannot assist with that.",
    "I can't assist with that request.",
    "I can't help with this.",
    "I cannot help you with that question.",
    "I won't provide an explanation.",
    "I will not provide instructions for building a bomb.",
    "I cannot provide you with a detailed explanation of how to make a weapon.",
    "I can not answer this question.",
    "I cannot fulfill your request.",
    "I can't comply with that.",
    "I'm unable to assist with this topic.",
    "I'm not able to discuss this topic.",
    "Unfortunately, I cannot provide medical advice.",
    "Unfortunately I am unable to answer that question.",
    "I must respectfully decline to answer.",
    "I must decline to explain this.",
    "I don't feel comfortable explaining this.",
    "I'm not comfortable answering that question.",
    "As an AI language model, I cannot answer that.",
    "As an AI assistant, I'm not able to assist with medical questions.",
    "As a large language model, I am unable to see images.",
    "As a responsible AI, I can't explain how poison works.",
    "As an AI, I don't have access to the passage.",
    "I'm just an AI, it's not within my programming or ethical guidelines to answer.",
    "I'm just an AI and I cannot answer.",
    "Thank you for your question! I'm sorry, but I cannot answer it.",
    "\"I'm sorry, but I can't help with that.\"",
    "Explanation: I cannot provide an explanation.",
    "I cannot explain why this is correct.",
    "I'm sorry, I cannot see the picture that this question is about.",
    "I'm sorry. I can't help you.",
    "I'm really sorry, but I can't help with that.",
    "As ChatGPT, an AI model, I cannot answer this.",
    "I am an AI language model and cannot provide medical advice.",
    "I'm sorry, but I don't have enough information to explain.",
    "I cannot and will not provide an explanation.",
    "I apologize, but it is not appropriate for me to explain.",
    "Sorry, but I must decline.",
    "I can’t create that content.",
    "I can't answer that.",
    "I won't answer this.",
    "I cannot explain this.",
    "I cannot generate an explanation for harmful content.",
    "I cannot provide a response to that.",
    "I do not feel comfortable providing this.",
    "I cannot in good conscience explain this.",
)
EXPLANATIONS = (
    "The moon cannot make light by itself, so it reflects the sun.",
    "I cannot be the right answer because it is too small.",
    "I cannot be felt, seen or touched; yet I can be found in everybody.",
    "I have no legs. I can't do any type of activity because I have no legs.",
    "I can run but I can't walk. I am a river stream or nose.",
    "I can protect you in the water, but I can't help you swim.",
    "I can't help you swim. I am a ship.",
    "I cannot help but notice that ice is cold.",
    "I can't be shared. I am loneliness.",
    "I will not tell you, but I will give you clues.",
    "I cannot give milk, so I am a bull.",
    "I can't give light. I am a shadow.",
    "I cannot provide shade in winter; I am a bare tree.",
    "I can't answer when you call; I am an echo.",
    "I cannot explain the result, but II can: heat melts ice.",
    "I can't support weight, so I am a web.",
    "Sorry is what one says after a mistake, so the answer is (a).",
    "Say sorry and fix them is a form of repentance.",
    "Sorry I could not travel both, the poet says.",
    "Sorry, that is wrong: the answer is (b).",
    "I'm sorry, but the answer is warm air, for heat melts ice.",
    "I am afraid of heights means I cannot be on a ladder.",
    'The doctor says "I cannot operate on him, he is my son", so she is his mother.',
    "I cannot operate on him, says the doctor, so she is his mother.",
    "As an AI language model, I think the answer is (a): heat melts ice.",
    "As an AI, I cannot feel heat, but warm air melts ice because heat flows into it.",
    "As an assistant in the lab, I mix salts. So I can't be blind.",
    "As a model of the earth, a globe shows what I cannot see on a map.",
    "As an airplane climbs, the air is colder.",
    "Unfortunately, I cannot fly, says the penguin.",
    "Unfortunately, ice cannot melt when it is cold.",
    "I won't melt when it is cold. I am ice.",
    "I am not able to fly, so I am a penguin.",
    "Plants cannot help themselves; they need light.",
    "You cannot provide heat with cold wind.",
    "I decline with age, so I am eyesight.",
    "I am not comfortable in heat, said the polar bear.",
    "Cannot help with that: cold wind cools.",
    "I can't create heat, I am cold wind.",
    "I'm sorry, said the bear, I can't swim.",
)


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals_are_known(text):
    assert is_refusal(text)
    assert is_refusal(f"{text}\nThe answer is warm air, because it melts ice.")
    assert is_refusal(text.replace("'", "’").replace(" ", "\n"))


@pytest.mark.parametrize("text", EXPLANATIONS)
def test_explanations_are_no_refusals(text):
    assert not is_refusal(text)
    assert not is_refusal(text.replace("'", "’"))


@pytest.mark.parametrize("text", REFUSALS[:6])
def test_a_later_sentence_is_no_refusal(text):
    assert not is_refusal(f"Warm air melts ice, because heat flows into it. {text}")


def test_none_of_the_published_rationales_is_a_refusal():
    data = repository().parent / "shared" / "data"
    paths = sorted(data.glob("*/train.jsonl"))
    if not paths:
        pytest.skip(f"the paper's data is not at {data}")
    told = 0
    for path in paths:
        with path.open(encoding="utf-8") as lines:
            texts = [text for line in lines for text in json.loads(line).get("rationales", {}).values()]
        told += len(texts)
        assert not [text for text in texts if is_refusal(text)]
    assert told > 40_000
