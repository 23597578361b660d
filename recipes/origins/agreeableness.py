"""Origin A again: a persona from 10 pairs of texts, their pipeline step by step, and what they suspected, tested.

    python recipes/origins/agreeableness.py --out runs/origin-a --page docs/origin-a.md
    python recipes/origins/agreeableness.py --out runs/origin-a --page docs/origin-a.md --many agreeableness.jsonl
    python recipes/origins/agreeableness.py --out runs/gpt2 --page runs/gpt2.md \
        --model gpt2 --sae gpt2-small-res-jb/blocks.8.hook_resid_pre --second gpt2-small-res-jb/blocks.10.hook_resid_pre

--many takes a model-written eval (Perez et al. 2022) for the runs with hundreds of texts; its sentences do not enter
the page. --skip says how many of its first rows something else has learned from, such as the SAE: those are never used
to measure.
"""

from __future__ import annotations

from pathlib import Path

import origin_a_page
from common import allow, claim, open_pair, parser, write_page
from origin_a import Study, parts, replay

from trimtab.find.pairs import ContrastSet
from trimtab.find.rows import rows_of
from trimtab.find.sources import from_rows, shipped

FEW = 10
HELD = 60


def many_sets(path: str, skip: int, seed: int, held: int = HELD) -> tuple[ContrastSet, ContrastSet]:
    """Of an eval: the texts to learn from, and `held` a side to measure on, of those after the first `skip` rows."""
    rows = rows_of(path)
    name = Path(path).name.split(".")[0]
    measured = from_rows(rows[skip:], f"{name}, held out", name).take(held, seed)
    used = {*measured.positive, *measured.negative}
    learned = from_rows([row for row in rows if row["statement"] not in used], name, name)
    return learned, measured


def main(words: list[str] | None = None) -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--second", help="an SAE of another layer (default: the shipped one of block 9)")
    arguments.add_argument("--many", help="a model-written eval for the runs with hundreds of texts")
    arguments.add_argument("--skip", type=int, default=0, help="rows of --many that something else has learned from")
    asked = arguments.parse_args(words)
    second = asked.second or ("gemma-3-270m-block-9" if asked.sae == "gemma-3-270m" else None)
    model, sae = open_pair(asked.model, asked.sae)
    saes = [sae, *([open_pair(asked.model, second)[1]] if second else [])]
    few, others, held = parts(shipped("agreeableness"), FEW, asked.seed)
    many, measured = many_sets(asked.many, asked.skip, asked.seed) if asked.many else (None, None)
    study = Study(
        model=model, saes=tuple(saes), few=few, others=others, many=many, held=held, measured=measured,
        questions=asked.many, skip=asked.skip, seed=asked.seed, folder=asked.out,
    )  # fmt: skip
    claim(asked.out, study.settings())
    allow(asked.parts)
    results = replay(study)
    if asked.page:
        write_page(asked.page, origin_a_page.page(results))


if __name__ == "__main__":
    main()
