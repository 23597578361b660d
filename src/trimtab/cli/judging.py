"""The judges that a command's options ask for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from trimtab.cli.console import say
from trimtab.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from trimtab.endpoint import Endpoint
    from trimtab.evidence.judges.judge import Judge
    from trimtab.find.pairs import ContrastSet
    from trimtab.lm.model import Model


def endpoint(url: str | None, model: str) -> Endpoint | None:
    """The model behind an address, with the key of OPENAI_API_KEY."""
    from trimtab.endpoint import Endpoint

    return None if url is None else Endpoint(url, model, os.environ.get("OPENAI_API_KEY"))


def other_model(name: str | None, device: str | None) -> Model | None:
    """Another model, which judges fluency."""
    if name is None:
        return None
    from trimtab.lm.load import open_model

    say(f"opening the model {name}")
    return open_model(name, device=device, say=say)


def judges_of(
    model: Model, labelled: ContrastSet | None, found_with: ContrastSet | None, sae_name: str | None,
    independent: Model | None, asked: Endpoint | None, concept: str | None,
) -> list[Judge]:  # fmt: skip
    """Judges of words (and of the features of another SAE) that learn from `labelled`, of fluency, and by `asked`.

    Those that refuse, and texts that the recipe was found with, are told. Raises `InputError` for options that lack
    what they need.
    """
    made: list[Judge] = []
    if labelled is not None:
        _tell_leaks(labelled, found_with)
        made += _of_words(labelled)
    if sae_name is not None:
        made.append(_of_features(model, sae_name, labelled))
    if independent is not None:
        from trimtab.evidence.judges.fluency import fluency_judges

        made += fluency_judges(model, independent)
    if asked is not None:
        from trimtab.evidence.judges.chat import chat_judges

        if concept is None:
            raise InputError("--judge asks about a concept: say it in words with --judge-concept, such as 'the sea'.")
        made += chat_judges(asked, concept)
    for judge in made:
        if judge.refusal is not None:
            say(f"{judge.refusal}; it leaves every text unscored")
    return made


def _of_words(labelled: ContrastSet) -> list[Judge]:
    from trimtab.evidence.judges.classifier import classifier
    from trimtab.evidence.judges.embedding import embedding_judge
    from trimtab.evidence.judges.words import word_judge

    made = [classifier(labelled), word_judge(labelled)]
    try:
        made.append(embedding_judge(labelled))
    except UnsupportedError as error:
        say(str(error))
    return made


def _of_features(model: Model, name: str, labelled: ContrastSet | None) -> Judge:
    from trimtab.evidence.judges.features import carrier_judge
    from trimtab.sae.load import check_fits, open_sae

    if labelled is None:
        raise InputError("--judge-sae needs --judge-pairs, the labelled texts that say which of its features to read.")
    say(f"opening the SAE {name}")
    sae = open_sae(name)
    check_fits(sae, model)
    return carrier_judge(model, sae.to(model.device), labelled)


def _tell_leaks(labelled: ContrastSet, found_with: ContrastSet | None) -> None:
    from trimtab.find.pairs import leaks

    if found_with is not None and (shared := leaks(found_with, labelled)):
        say(
            f"{len(shared):,} texts of --judge-pairs are, or nearly are, texts of --pairs: the judges and the recipe "
            "may have learned the same accident. Independent texts make a stronger proof."
        )
