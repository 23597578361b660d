"""Judges that learn: each tells planted texts apart, and none believes itself when the labels are shuffled."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from trimtab.errors import FileError, InputError
from trimtab.evidence.judges import embedding
from trimtab.evidence.judges.classifier import classifier
from trimtab.evidence.judges.classifier import learn as learn_words
from trimtab.evidence.judges.embedding import embedding_judge, sentence_encoder
from trimtab.evidence.judges.features import carrier_judge, carriers, reactivation
from trimtab.evidence.judges.judge import Judge, folds, learned, out_of_fold, skill_of, texts_as_records
from trimtab.evidence.judges.words import WordLists, read_words, word_judge, word_lists
from trimtab.find.pairs import ContrastSet
from trimtab.steer.generate import Record
from trimtab.testing.planted import PlantedWorld


def text_record(prompt: str, text: str, ids: tuple[int, ...] = (), start: int = 0) -> Record:
    return Record(prompt, text, ids, start, recipe=None, seed=0, sample=0, finished="length")


def bag(texts: Sequence[str]) -> Tensor:
    """An encoder without a model: which letters pairs a text has, as a unit vector."""
    rows = torch.zeros(len(texts), 26 * 26)
    for row, text in zip(rows, texts, strict=True):
        for a, b in pairwise(text):
            if a.isalpha() and b.isalpha():
                row[(ord(a) - 97) * 26 + ord(b) - 97] = 1
    return torch.nn.functional.normalize(rows, dim=-1)


@pytest.fixture(scope="module")
def sea(world: PlantedWorld) -> ContrastSet:
    return ContrastSet.of(world.texts("sea", 40, 1), world.texts(None, 40, 2), name="sea", paired=True)


Make = Callable[[PlantedWorld, ContrastSet], Judge]
MAKERS: dict[str, Make] = {
    "classifier": lambda _, texts: classifier(texts),
    "word list": lambda _, texts: word_judge(texts),
    "embedding": lambda _, texts: embedding_judge(texts, encoder=bag),
    "features": lambda world, texts: carrier_judge(world.model, world.sae, texts),
}


def shuffled(contrast: ContrastSet, seed: int) -> ContrastSet:
    coin = random.Random(seed)
    pairs = [p if coin.random() < 0.5 else p[::-1] for p in zip(contrast.positive, contrast.negative, strict=True)]
    return replace(contrast, positive=tuple(p for p, _ in pairs), negative=tuple(n for _, n in pairs))


@pytest.mark.parametrize("name", MAKERS)
def test_a_judge_tells_planted_texts_apart_and_says_so(world: PlantedWorld, sea: ContrastSet, name: str) -> None:
    judge = MAKERS[name](world, sea)
    assert judge.skill is not None
    assert judge.skill.auc > 0.9
    assert judge.skill.low > 0.8
    assert judge.refusal is None
    unseen = [*world.texts("sea", 10, 77), *world.texts(None, 10, 78)]
    scores = judge(texts_as_records(unseen, world.model))
    assert min(s for s in scores[:10] if s is not None) >= max(s for s in scores[10:] if s is not None) - 1e-6


@pytest.mark.parametrize("name", MAKERS)
def test_a_judge_of_shuffled_labels_refuses(world: PlantedWorld, sea: ContrastSet, name: str) -> None:
    judge = MAKERS[name](world, shuffled(sea, 3))
    assert judge.refusal is not None
    assert "cannot tell the two sides apart" in judge.refusal
    assert judge(texts_as_records(world.texts("sea", 3, 5), world.model)) == [None] * 3


def test_shuffled_labels_pass_in_no_more_than_the_stated_share() -> None:
    """The rule itself, on scores that know nothing: two-sided p below 0.01 and the right side."""
    passed = 0
    texts = ContrastSet("x", tuple(f"p {i}" for i in range(20)), tuple(f"n {i}" for i in range(20)))
    for seed in range(400):
        draw = np.random.default_rng(seed)
        passed += skill_of(lambda some, draw=draw: [float(x) for x in draw.normal(size=len(some))], texts).enough  # type: ignore[misc]
    assert passed <= 8


def test_held_out_texts_are_never_learned_from(sea: ContrastSet) -> None:
    seen: list[tuple[set[str], set[str]]] = []

    def learn(contrast: ContrastSet) -> Callable[[Sequence[Record]], list[float | None]]:
        known = {*contrast.positive, *contrast.negative}

        def read(records: Sequence[Record]) -> list[float | None]:
            seen.append((known, {one.text for one in records}))
            return [0.0] * len(records)

        return read

    scores = out_of_fold(learn, sea)
    assert len(scores[0]) == len(scores[1]) == 40
    assert None not in scores[0] + scores[1]
    assert all(not known & tried for known, tried in seen)


def test_folds_keep_pairs_and_near_duplicates_together() -> None:
    positive = tuple(f"number {i} stands for itself alone {i * i}" for i in range(20))
    negative = (*(f"negative {i} is another thing {i * 7}" for i in range(19)), "number 3 stands for itself alone 9")
    parts = folds(ContrastSet("x", positive, negative))
    assert sorted(i for rows, _ in parts for i in rows) == list(range(20))
    assert all(rows == others for rows, others in parts)
    assert any({3, 19} <= rows for rows, _ in parts)
    alone = folds(ContrastSet("x", positive, negative[:10], paired=False))
    assert sorted(i for _, others in alone for i in others) == list(range(10))
    with pytest.raises(InputError, match="too small, or too repetitive"):
        folds(ContrastSet("x", ("same text here",) * 9, ("other words there",) * 9))


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    held = ContrastSet("x", ("3", "1", "2"), ("0", "2", "9"))
    skill = skill_of(lambda some: [float(one.text) for one in some], held)
    assert skill.auc == pytest.approx((2 + 1 + 1.5) / 9)
    assert (skill.texts, skill.unscored) == (6, 0)
    partly = skill_of(lambda some: [None if one.text == "9" else float(one.text) for one in some], held)
    assert partly.auc == pytest.approx((2 + 1 + 1.5) / 6)
    assert partly.unscored == 1
    assert not skill_of(lambda some: [None] * len(some), held).enough


def test_scores_that_are_no_numbers_are_refused() -> None:
    one = texts_as_records(["a"])
    with pytest.raises(InputError, match="no number"):
        Judge("x", "", lambda _: [float("nan")])(one)
    with pytest.raises(InputError, match="gave 2 scores for 1 texts"):
        Judge("x", "", lambda _: [1.0, 2.0])(one)
    assert Judge("x", "", lambda _: [None])(one) == [None]


def test_an_empty_text_is_unscored(world: PlantedWorld, sea: ContrastSet) -> None:
    for make in MAKERS.values():
        judge = make(world, sea)
        assert judge([text_record("the cat", "", (1, 5), 2), *texts_as_records(["the boat ."], world.model)])[0] is None


def test_the_classifier_weighs_what_it_was_taught() -> None:
    read = learn_words(ContrastSet("x", ("I am so glad!", "How glad we are!"), ("I was so sad.", "They are sad.")))
    scores = read(texts_as_records(["glad", "sad", "xyzzy"]))
    assert scores[0] > scores[2] > scores[1]  # type: ignore[operator]


def test_word_types_are_counted_once() -> None:
    lists = WordLists(("wave", "boat"), ("desk",))
    assert lists.count("Wave, wave, WAVE!") == 1
    assert lists.count("a boat on a wave, a desk") == 1
    assert lists.count("desk desk") == -1
    learned_lists = word_lists(
        ContrastSet("x", ("the sea sea", "a sea", "the sea now", "one"), ("the desk", "a desk", "this desk", "two"))
    )
    assert learned_lists == WordLists(("sea",), ("desk",))


def test_a_users_word_list(tmp_path: Path) -> None:
    path = tmp_path / "sea.txt"
    path.write_text("# ships\nBoat\n\nboat\n-desk\n", encoding="utf-8")
    assert read_words(path) == WordLists(("boat",), ("desk",))
    assert word_judge(read_words(path))(texts_as_records(["A boat!", "..."])) == [1.0, None]
    path.write_text("two words\n", encoding="utf-8")
    with pytest.raises(InputError, match="not one word"):
        read_words(path)
    path.write_text("-desk\n", encoding="utf-8")
    with pytest.raises(InputError, match="no words of the concept"):
        read_words(path)
    with pytest.raises(FileError, match="cannot be read"):
        read_words(tmp_path / "none.txt")


def test_the_carriers_are_the_planted_features(world: PlantedWorld, sea: ContrastSet) -> None:
    found = carriers(world.model, world.sae, sea)
    assert {world.concepts["sea"], world.readers["sea"]} <= {feature for feature, weight in found.items() if weight > 0}
    others = {world.concepts["fire"], world.readers["music"]}
    assert not others & set(found)


def test_reactivation_is_the_mean_over_generated_tokens(world: PlantedWorld) -> None:
    feature = world.concepts["sea"]
    prompt, text = "the wave saw", "the boat . the stone"
    row = tuple(world.model.encode(f"{prompt} {text}"))
    start = len(world.model.encode(prompt))
    judge = reactivation(world.model, world.sae, {feature: 2.0})
    both = judge([text_record(prompt, text, row, start), text_record(prompt, "", row[:start], start)])
    ids = torch.tensor([row])
    with torch.no_grad():
        h = world.model.hf.transformer(ids, output_hidden_states=True).hidden_states[world.site.layer + 1][0, start:]
    assert both == [pytest.approx(2 * float(world.sae.encode(h)[:, feature].mean()), rel=1e-4), None]
    with pytest.raises(InputError, match="needs the token ids"):
        judge([text_record("", "the boat")])


def test_a_judge_can_be_tried_on_texts_of_another_set(world: PlantedWorld) -> None:
    few = ContrastSet.of(world.texts("sea", 8, 1), world.texts(None, 8, 2))
    other = ContrastSet.of(world.texts("sea", 9, 3), world.texts(None, 9, 4))
    judge = learned(
        "x",
        "",
        lambda _: reactivation(world.model, world.sae, {world.concepts["sea"]: 1.0}).read,
        few,
        other,
        model=world.model,
    )
    assert judge.skill is not None
    assert (judge.skill.auc, judge.skill.texts) == (1.0, 18)


def test_a_sentence_encoder_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "sea", "boat", "desk", "chair"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=6, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, pad_token_id=0
    )
    model = BertModel(config).eval()
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(embedding, "_package", lambda: tmp_path)
    encode = sentence_encoder()
    found = encode(["sea boat boat", "desk", "desk"])
    assert found.norm(dim=-1).tolist() == pytest.approx([1, 1, 1])
    assert torch.equal(found[1], found[2])
    with torch.no_grad():
        mean = model(torch.tensor([[2, 3, 3]])).last_hidden_state[0].mean(0)
    assert torch.allclose(found[0], mean / mean.norm(), atol=1e-5)
    with pytest.raises(FileError, match="no folder of a sentence encoder"):
        sentence_encoder(str(tmp_path / "none"))
    sentence_encoder.cache_clear()
