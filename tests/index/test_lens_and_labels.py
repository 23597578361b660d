"""What decoder rows point at, and labels with their detection scores, in the planted world."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trimtab.errors import InputError, MismatchError
from trimtab.index.labels import (
    Snippet,
    add_labels,
    add_rule_labels,
    by_words,
    detection,
    held_out,
    shuffled,
)  # fmt: skip
from trimtab.index.lens import add_lens, reads_writes
from trimtab.index.records import Label, Word
from trimtab.index.rules import rule_label
from trimtab.index.store import Index, open_index
from trimtab.testing.planted import PlantedWorld


@pytest.fixture
def own(index: Index, tmp_path: Path) -> Index:
    return open_index(shutil.copytree(index.folder, tmp_path / "own"))


def test_lens_is_the_output_head_of_the_row(world: PlantedWorld, index: Index) -> None:
    """This world has no final norm, so the lens of a row is `lm_head(row)`."""
    feature = world.concepts["fire"]
    found = index.feature(feature).lens
    assert found is not None
    logits = world.model.hf.lm_head(world.sae.W_dec[feature])
    names = world.model.tokenizer.convert_ids_to_tokens(range(len(logits)))
    by_text = dict(zip(names, logits.tolist(), strict=True))
    assert {text for text, _ in found.promoted} == set(world.words["fire"])
    best = sorted((by_text[t] for t, _ in found.promoted), reverse=True)
    assert [value for _, value in found.promoted] == pytest.approx(best)
    assert [value for _, value in found.suppressed] == pytest.approx(logits.sort().values[:5].tolist(), abs=1e-6)


def test_lens_goes_through_the_final_norm(tiny, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from trimtab.index.lens import ends

    rows = torch.randn(3, tiny.d_model, generator=torch.Generator().manual_seed(0))
    (values, ids), (lowest, _) = ends(tiny, rows, 4)
    logits = tiny.hf.lm_head(tiny.hf.model.norm(rows))
    assert torch.allclose(values, logits.sort(descending=True).values[:, :4])
    assert torch.allclose(logits.gather(1, ids), values)
    assert torch.allclose(lowest, logits.sort().values[:, :4])


def test_neighbours_are_the_largest_cosines(world: PlantedWorld, index: Index) -> None:
    rows = torch.nn.functional.normalize(world.sae.W_dec, dim=-1)
    cosine = rows @ rows.T
    for i in (0, 7, 29):
        others = [(float(cosine[i, j]), j) for j in range(30) if j != i]
        found = index.feature(i).lens
        assert found is not None
        assert [n for n, _ in found.neighbours] == [j for _, j in sorted(others, reverse=True)[:3]]
        assert [c for _, c in found.neighbours] == pytest.approx([c for c, _ in sorted(others, reverse=True)[:3]])


def test_reading_and_writing(world: PlantedWorld, index: Index) -> None:
    kinds = {f: one.reads_writes for f, one in index.lenses().items()}
    assert {kinds[f] for f in world.concepts.values()} == {"both"}
    assert {kinds[f] for f in world.readers.values()} == {"reads"}
    assert set(kinds.values()) == {"both", "reads", "unscored"}
    assert [reads_writes(0.1, score) for score in (0.02, 0.0, None)] == ["writes", "neither", "unscored"]


def test_another_sae_is_refused(world: PlantedWorld, index: Index) -> None:
    other = replace(world.sae, b_enc=world.sae.b_enc + 1)
    with pytest.raises(MismatchError, match="made with the SAE"):
        add_lens(world.model, other, index)


def test_rule_labels_name_the_words(world: PlantedWorld, own: Index) -> None:
    labels = add_rule_labels(own)
    for concept, feature in world.concepts.items():
        reads, _, writes = labels[feature].text.partition(" → ")
        assert set(reads.split(", ")) <= set(world.words[concept])
        assert set(writes.split(", ")) <= set(world.words[concept])
        assert labels[feature].score is None
    assert own.labels([5])[5] == (labels[5],)
    assert len(own.labels()) == own.features


def test_a_common_token_that_sometimes_fires_comes_after_one_that_always_does() -> None:
    words = [Word(1, " the", 50, 10_000), Word(2, " Fire", 40, 40), Word(3, "fire,", 10, 10), Word(4, "\n", 90, 90)]
    assert rule_label(words, None) == "fire, the"
    assert rule_label([], None) == "(never fires)"


def test_labels_tell_where_features_fire_and_shuffled_ones_do_not(world: PlantedWorld, own: Index, unseen: str) -> None:
    """Detection on texts that were not indexed, with shuffled labels as the control."""
    planted = [*world.concepts.values(), *world.readers.values()]
    snippets = held_out(
        world.model, world.sae, [unseen], range(30), width=6, context=24, limit=own.about["sink_limit"], per_side=8
    )
    for feature in planted:
        assert sum(s.fires for s in snippets[feature]) == 8
        words = next(set(world.words[c]) for c in world.words if feature in (world.concepts[c], world.readers[c]))
        for snippet in snippets[feature]:
            assert len(snippet.tokens) <= 6
            if snippet.fires:
                assert words & set(snippet.tokens)
    labels = add_rule_labels(own, snippets=snippets)
    # a label names four of the five words, and a snippet may have the fifth alone
    assert all((labels[f].score or 0) > 0.8 for f in planted)
    texts = {f: labels[f].text for f in world.concepts.values()}
    control = shuffled(texts)
    assert all(control[f] != texts[f] for f in texts)
    wrong = [detection(control[f], snippets[f]) for f in texts]
    assert all(score is not None and 0.3 < score < 0.7 for score in wrong)


def test_detection_is_balanced_accuracy_and_unscored_without_both_sides() -> None:
    yes, no = Snippet(("a", " fire"), True), Snippet((" Fire",), False)
    missed, other = Snippet(("x",), True), Snippet(("y",), False)
    assert detection("fire → z", [yes, missed, missed, missed, other]) == (1 / 4 + 1) / 2
    assert detection("fire", [yes, yes, no, other]) == (1 + 1 / 2) / 2
    assert detection("fire", [yes]) is None
    assert detection("fire", []) is None
    assert by_words("a → fire", [no]) == [False]


def test_labels_of_another_method_stay(own: Index) -> None:
    add_labels(own, {3: Label("first", "rule", 0.6), 4: Label("four", "rule", None)})
    add_labels(own, {3: Label("by a model", "llm m", 0.9)})
    add_labels(own, {3: Label("second", "rule", 0.7)})
    assert own.labels() == {
        3: (Label("by a model", "llm m", 0.9), Label("second", "rule", 0.7)),
        4: (Label("four", "rule", None),),
    }
    with pytest.raises(InputError, match="out of range"):
        add_labels(own, {30: Label("x", "rule", None)})
    with pytest.raises(InputError, match="at least two"):
        shuffled({1: "x"})
