"""Writing text with and without recipes: the public `generate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from trimtab.errors import InputError
from trimtab.spec import Sampling, Scope

if TYPE_CHECKING:
    from trimtab.lm.decode import Progress, Row
    from trimtab.lm.model import Model
    from trimtab.steer.recipe import Recipe


@dataclass(frozen=True)
class Record:
    """One generated text.

    `text` is the generated part alone; `token_ids` are prompt and generated tokens (an end token included), the latter
    from index `generated_from` on. (`seed`, `prompt`, `sample`) name the random stream that drew it.
    """

    prompt: str
    text: str
    token_ids: tuple[int, ...]
    generated_from: int
    recipe: Recipe | None
    seed: int
    sample: int
    finished: Literal["eos", "length"]


def generate(
    model: Model,
    prompts: str | Sequence[str],
    recipe: Recipe | Sequence[Recipe | None] | None = None,
    *,
    samples: int = 1,
    max_new_tokens: int = 100,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> list[Record]:
    """Write `samples` texts for each prompt; records come prompt by prompt, and by sample within a prompt.

    `recipe`: one for all prompts, or a list with one per prompt (None: unsteered). Temperature 0 is greedy; top_k,
    top_p and min_p apply in this order, as in transformers. `batch_size` None chooses from the free memory.

    A text depends on (seed, prompt, sample number, recipe, settings) only, not on what else is in the batch, up to
    the rounding of float32 sums; the random numbers do not depend on the recipe, so steered and unsteered texts with
    one seed can be compared pairwise. A prompt that is given again with the same recipe counts as further samples
    of it, so that its texts differ.

    Raises `InputError` for an empty prompt, one that leaves no room in the context, a recipe list of the wrong length,
    a setting out of range, and a scope that cannot select any token; `MismatchError` for a recipe of another model;
    `UnsupportedError` inside `model.edited(...)`.
    """
    from trimtab.lm.decode import decode
    from trimtab.lm.memory import rows_that_fit

    sampling = Sampling.parse(
        {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    )
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    recipes = _one_per_prompt(recipe, len(texts))
    if not isinstance(samples, int) or samples < 1:
        raise InputError(f"samples must be a whole number of at least 1, not {samples!r}.")
    if not isinstance(seed, int):
        raise InputError(f"seed must be a whole number, not {seed!r}.")
    planned = plan(model, texts, recipes, samples, sampling, seed)
    rows = [row for *_, row in planned]
    if batch_size is None:
        longest = max((len(row.prompt) + max_new_tokens for row in rows), default=1)
        batch_size = rows_that_fit(model, longest)
    elif batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}.")
    written = decode(model, rows, batch_size=batch_size, stops=model.eos_ids, progress=progress)
    return [
        Record(
            prompt=text,
            text=model.decode(one.tokens),
            token_ids=row.prompt + one.tokens,
            generated_from=len(row.prompt),
            recipe=given,
            seed=seed,
            sample=sample,
            finished=one.finished,
        )
        for (text, sample, given, row), one in zip(planned, written, strict=True)
    ]


def _one_per_prompt(recipe: Recipe | Sequence[Recipe | None] | None, n: int) -> list[Recipe | None]:
    if not isinstance(recipe, Sequence):
        return [recipe] * n
    if len(recipe) != n:
        raise InputError(f"There are {len(recipe)} recipes for {n} prompts; give one for all, or one per prompt.")
    return list(recipe)


def plan(
    model: Model, texts: list[str], recipes: list[Recipe | None], samples: int, sampling: Sampling, seed: int
) -> list[tuple[str, int, Recipe | None, Row]]:
    """(prompt, sample number, recipe, row) of every text that `generate` would write for these arguments."""
    from trimtab.lm.decode import Row
    from trimtab.lm.sampling import stream_key

    given: Counter[tuple[str, Recipe | None]] = Counter()
    planned = []
    for text, recipe in zip(texts, recipes, strict=True):
        ids = tuple(model.encode_prompt(text, sampling.max_new_tokens))
        if not ids:
            raise InputError(f"The prompt {text!r} has no tokens.")
        if recipe is not None:
            check_scopes(recipe, len(ids), sampling.max_new_tokens)
        on_prompt = recipe is not None and any(edit.spec.scope.prompt for edit in recipe.edits)
        first = given[text, recipe] * samples
        given[text, recipe] += 1
        for sample in range(first, first + samples):
            planned.append(
                (text, sample, recipe, Row(ids, stream_key(seed, text, sample), sampling, recipe, on_prompt))
            )
    return planned


def check_scopes(recipe: Recipe, prompt: int, new: int) -> None:
    """Refuse an edit that cannot act on any token that the model reads (the last one written is not read again)."""
    for edit in recipe.edits:
        scope: Scope = edit.spec.scope
        start = 0 if scope.prompt else prompt
        stop = prompt + new - 1 if scope.generated else prompt
        if scope.window is not None:
            start = max(start, scope.window[0])
            stop = stop if scope.window[1] is None else min(stop, scope.window[1])
        if not any(position not in scope.exclude for position in range(start, stop)):
            raise InputError(
                f"The edit {edit.spec.op!r} at {edit.spec.site} would change nothing: its scope selects none of the "
                f"{prompt} prompt tokens and {new - 1} generated tokens that the model reads."
            )
