from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from trimtab.index.build import IndexSpec, build
from trimtab.index.lens import add_lens
from trimtab.index.store import Index
from trimtab.testing.planted import PlantedWorld, planted_world

SPEC = IndexSpec(context=24, window=20, top=4, random=3, per_band=2, words=500, partners=500)


@pytest.fixture(scope="session")
def world() -> PlantedWorld:
    return planted_world()


@pytest.fixture(scope="session")
def corpus(world: PlantedWorld, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shuffled texts of the planted world, one of them longer than a context."""
    return write_corpus(world, tmp_path_factory.mktemp("corpus") / "texts.jsonl", seed=0)


@pytest.fixture(scope="session")
def unseen(world: PlantedWorld, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_corpus(world, tmp_path_factory.mktemp("corpus") / "unseen.jsonl", seed=1)


@pytest.fixture(scope="session")
def index(world: PlantedWorld, corpus: str, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """An index with its lens; tests that write to it copy it first."""
    made = build(world.model, world.sae, [corpus], tmp_path_factory.mktemp("index") / "index", SPEC)
    scores = {**dict.fromkeys(world.concepts.values(), 0.5), **dict.fromkeys(world.readers.values(), 0.0)}
    add_lens(world.model, world.sae, made, output_scores=scores, tokens=5, neighbours=3)
    return made


def write_corpus(world: PlantedWorld, path: Path, seed: int) -> str:
    rows = [(text, str(c)) for c in (None, *world.words) for text in world.texts(c, 30, seed)]
    rows += [(" ".join(text for text, _ in rows[:4]), "long")]
    random.Random(seed).shuffle(rows)
    path.write_text("".join(json.dumps({"text": text, "source": source}) + "\n" for text, source in rows))
    return str(path)
