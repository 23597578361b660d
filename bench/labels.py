"""How well labels by rule tell where features fire, on texts that were not indexed, against shuffled labels.

    python bench/labels.py INDEX UNSEEN --out bench/results/labels.json --page docs/index.md

The features are drawn at random among those that fire in at least ten pieces of the unseen texts; the other ones that
could have been drawn are reported beside them, and are those on which the rule was tuned.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import machine
import numpy as np
from page import put
from tables import table

from trimtab.files import write_file, write_json
from trimtab.index.labels import RULE, Snippet, by_words, detection, held_out, shuffled
from trimtab.index.rules import rule_label
from trimtab.index.store import Index, open_index
from trimtab.lm.load import open_model
from trimtab.sae.load import open_sae

SIDE, WIDTH, SHUFFLES, DRAWS = 10, 24, 20, 2000
Rows = dict[int, list[Snippet]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("unseen")
    parser.add_argument("--features", type=int, default=50)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--sae", default="gemma-3-270m")
    given = parser.parse_args()
    model, sae, index = open_model(given.model), open_sae(given.sae), open_index(given.index)
    seen = held_out(
        model, sae, [given.unseen], range(sae.d_sae), per_side=SIDE, width=WIDTH, contexts=1 << 20,
        limit=index.about["sink_limit"],
    )  # fmt: skip
    snippets = {feature: rows for feature, rows in seen.items() if len(rows) == 2 * SIDE}
    chosen = random.Random("features of bench/labels.py").sample(sorted(snippets), given.features)
    others = sorted(set(snippets) - set(chosen))
    said = {
        "about": {
            **machine.about(model),
            "sae": sae.name,
            "indexed_tokens": index.tokens,
            "pieces_a_feature": 2 * SIDE,
            "tokens_a_piece": WIDTH,
            "eligible": len(snippets),
            "live": index.query("from features select count(*) filter (count > 0) as n")[0]["n"],
        },
        "drawn": {**measure(index, snippets, chosen), "features": one_by_one(index, snippets, chosen)},
        "others": measure(index, snippets, others),
    }
    print(json.dumps({"drawn": {k: v for k, v in said["drawn"].items() if k != "features"}, "others": said["others"]}))
    if given.out:
        write_json(given.out, said)
    if given.page:
        text = put(given.page.read_text(encoding="utf-8"), "labels", render(said), by="bench/labels.py")
        with write_file(given.page) as part:
            part.write_text(text, encoding="utf-8")


def labels(index: Index, features: list[int]) -> dict[str, dict[int, str]]:
    """The labels as they are stored, and what they would be from firing tokens alone."""
    found, words = index.labels(features), index.words(features)
    return {
        "rule": {f: next(one.text for one in found[f] if one.method == RULE) for f in features},
        "firing tokens alone": {f: rule_label(words.get(f, ()), None) for f in features},
    }


def measure(index: Index, snippets: Rows, features: list[int]) -> dict[str, Any]:
    """Mean balanced accuracy of each way with its 95 % interval over features, and of the same labels shuffled."""
    result: dict[str, Any] = {"n": len(features)}
    for way, texts in labels(index, features).items():
        scores = np.array([detection(texts[f], snippets[f]) for f in features], dtype=float)
        said = [(by_words(texts[f], snippets[f]), [s.fires for s in snippets[f]]) for f in features]
        found = [sum(a and b for a, b in zip(*one, strict=True)) / SIDE for one in said]
        false = [sum(a and not b for a, b in zip(*one, strict=True)) / SIDE for one in said]
        wrong = [
            np.mean([detection(other[f], snippets[f]) for f in features])
            for other in (shuffled(texts, seed) for seed in range(SHUFFLES))
        ]
        result[way] = {
            "balanced_accuracy": float(scores.mean()),
            "interval": interval(scores),
            "above_0.7": float((scores > 0.7).mean()),
            "found": float(np.mean(found)),
            "false": float(np.mean(false)),
            "shuffled": float(np.mean(wrong)),
            "shuffled_highest": float(np.max(wrong)),
        }
    return result


def interval(scores: np.ndarray) -> list[float]:
    """95 % percentile bootstrap over features."""
    draws = np.random.default_rng(0).integers(len(scores), size=(DRAWS, len(scores)))
    return [float(x) for x in np.percentile(scores[draws].mean(1), [2.5, 97.5])]


def one_by_one(index: Index, snippets: Rows, features: list[int]) -> list[dict[str, Any]]:
    texts = labels(index, features)["rule"]
    return [{"feature": f, "label": texts[f], "balanced_accuracy": detection(texts[f], snippets[f])} for f in features]


def render(said: dict[str, Any]) -> str:
    """The table of docs/index.md."""
    about, rows = said["about"], []
    for name, key in ((f"{said['drawn']['n']} features drawn at random", "drawn"), ("the other features", "others")):
        for way in ("rule", "firing tokens alone"):
            one = said[key][way]
            rows.append(
                [
                    f"{name} ({said[key]['n']:,}), {way}" if key == "others" else f"{name}, {way}",
                    f"{one['balanced_accuracy']:.3f}",
                    "{:.3f} to {:.3f}".format(*one["interval"]),
                    f"{one['found']:.2f}",
                    f"{one['false']:.2f}",
                    f"{one['shuffled']:.3f}",
                ]
            )
    head = ["labels", "balanced accuracy", "95 % interval", "found", "false", "shuffled labels"]
    return (
        f"{about['model']}, SAE {about['sae']}, {about['indexed_tokens']:,} tokens indexed; "
        f"{about['pieces_a_feature'] // 2} unseen pieces of {about['tokens_a_piece']} tokens in which the feature "
        f"fires and as many in which it does not, for each of the {about['eligible']:,} features (of {about['live']:,} "
        f"that fired in the index) of which the unseen texts have so many.\n\n" + table(head, rows)
    )


if __name__ == "__main__":
    main()
