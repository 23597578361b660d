"""Texts drawn from a model, to be read by an index or a training: nobody's sentences but the model's own.

    draw(model, CorpusSpec(texts=1000, sampling=Sampling(max_new_tokens=96)), "runs/corpus")

The folder is a run folder (`scale/folder.py`) with `rows-00000.parquet`, ... and in them a row for each
text. `trimtab index build` and `trimtab train` read the parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from trimtab.errors import InputError
from trimtab.scale.run import LOCAL, On, Say
from trimtab.scale.store import Store
from trimtab.spec import Sampling, Spec
from trimtab.steer.parts import Cost, Job, about_model, choose_batch
from trimtab.steer.run_folder import CORPUS

if TYPE_CHECKING:
    from trimtab.lm.decode import Progress, Row, Written
    from trimtab.lm.model import Model

NO_OPENER = "(no opener)"


class CorpusSpec(Spec):
    """What to draw: text i continues opener i modulo their number. The opener "" is BOS alone.

    A text is the one that `generate(opener, seed=seed)` draws as sample i divided by the number of openers.
    """

    prompts: Annotated[tuple[str, ...], Field(min_length=1)] = ("",)
    texts: Annotated[int, Field(ge=1)]
    seed: int = 0
    sampling: Sampling = Sampling(max_new_tokens=96)

    @model_validator(mode="after")
    def _each_once(self) -> CorpusSpec:
        twice = sorted({prompt for prompt in self.prompts if self.prompts.count(prompt) > 1})
        if twice:
            raise ValueError(f"an opener is given twice: {twice[0]!r}")
        return self


def draw(
    model: Model,
    spec: CorpusSpec,
    folder: str | PathLike[str] | Store,
    *,
    batch_size: int | None = None,
    on: On = LOCAL,
    progress: Callable[[Progress], None] | None = None,
    say: Say = lambda _: None,
) -> None:
    """Write the texts that `folder` does not have yet; a complete folder is left as it is. As `sweep` has them:
    `folder`, `on` and `say`.

    Each row has `text` (opener and continuation), `source` (the opener), `prompt`, `seed`, `sample`, `token_ids` (the
    continuation from `generated_from` on), `finished` and `model` (its fingerprint). Raises `InputError` for the opener
    "" with a model that has no BOS, and for openers that `generate` refuses; `MismatchError` when the folder holds
    another corpus.
    """
    there = CORPUS.folder(folder)
    _job(model, spec, there.manifest(), batch_size).write(there, progress, on, say)


def estimate(
    model: Model, spec: CorpusSpec, folder: str | PathLike[str] | Store, *, batch_size: int | None = None
) -> Cost:
    """What `draw` would still have to do, at the rate of a few steps of its first batch. Writes nothing."""
    there = CORPUS.folder(folder)
    return _job(model, spec, there.manifest(), batch_size).cost(there)


@dataclass(frozen=True, eq=False)
class _Texts:
    model: Model
    spec: CorpusSpec
    prompts: dict[str, tuple[int, ...]]

    def place(self, number: int) -> tuple[str, int]:
        """(opener, sample) of a row."""
        n = len(self.spec.prompts)
        return self.spec.prompts[number % n], number // n

    def rows(self, span: range) -> list[Row]:
        from trimtab.lm.decode import Row
        from trimtab.lm.sampling import stream_key

        return [
            Row(self.prompts[prompt], stream_key(self.spec.seed, prompt, sample), self.spec.sampling)
            for prompt, sample in map(self.place, span)
        ]

    def records(self, span: range, rows: list[Row], written: list[Written]) -> list[dict[str, Any]]:
        return [
            {
                "row": number,
                "source": prompt or NO_OPENER,
                "sample": sample,
                "prompt": prompt,
                "seed": self.spec.seed,
                "text": prompt + self.model.decode(one.tokens),
                "token_ids": [*row.prompt, *one.tokens],
                "generated_from": len(row.prompt),
                "finished": one.finished,
                "model": self.model.fingerprint,
            }
            for number, (prompt, sample), row, one in zip(span, map(self.place, span), rows, written, strict=True)
        ]


def _job(model: Model, spec: CorpusSpec, found: dict[str, Any] | None, batch_size: int | None) -> Job:
    new = spec.sampling.max_new_tokens
    prompts = {prompt: _ids(model, prompt, new) for prompt in spec.prompts}
    batch_size = choose_batch(model, max(map(len, prompts.values())) + new, spec.texts, batch_size, found)
    manifest = {
        "spec": spec.model_dump(mode="json"),
        "model": about_model(model),
        "device": model.device.type,
        "batch_size": batch_size,
        "rows": spec.texts,
    }
    texts = _Texts(model, spec, prompts)
    return Job(model, CORPUS, manifest, spec.texts, new, batch_size, texts.rows, texts.records)


def _ids(model: Model, prompt: str, new: int) -> tuple[int, ...]:
    if prompt:
        return tuple(model.encode_prompt(prompt, new))
    if model.bos_id is None:
        raise InputError(f"{model.name} has no BOS token to begin a text with; give an opener with --prompt.")
    return (model.bos_id,)
