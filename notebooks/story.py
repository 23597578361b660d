"""From a question to the proof, in one sitting: `make notebook` opens it, and every step can be changed.

Plain Python: `python notebooks/story.py` runs it from top to bottom without a browser.
"""
# ruff: noqa: E501 (Markdown stands as it is)

import marimo

app = marimo.App(width="medium", app_title="trimtab: from a question to the proof")


@app.cell
def _():
    import tempfile
    from html import escape
    from pathlib import Path

    import marimo as mo

    from trimtab import Recipe, open_model, open_sae, verify
    from trimtab.evidence.lines import steered_lines
    from trimtab.find.candidates import groups_of
    from trimtab.find.contrast import collect
    from trimtab.find.effect import likelihood_shift, neutral
    from trimtab.find.find import Settings, find
    from trimtab.find.fit import fit
    from trimtab.find.show import to_json
    from trimtab.find.sources import shipped, shipped_names
    from trimtab.report.curves import draw
    from trimtab.report.feature_map import feature_map
    from trimtab.report.html import token_mark
    from trimtab.steer.dose import measure_dose
    from trimtab.steer.dose_picture import picture
    from trimtab.steer.neutral import NEUTRAL

    return (
        NEUTRAL,
        Path,
        Recipe,
        Settings,
        collect,
        draw,
        escape,
        feature_map,
        find,
        fit,
        groups_of,
        likelihood_shift,
        measure_dose,
        mo,
        neutral,
        open_model,
        open_sae,
        picture,
        shipped,
        shipped_names,
        steered_lines,
        tempfile,
        to_json,
        token_mark,
        verify,
    )


@app.cell
def _(mo):
    mo.md("""
    # From a question to the proof

    *Which features of a small language model does a concept switch on, what happens when we push them, and how do we
    know?* Change a cell and everything that depends on it runs again. The model is Gemma 3 270M; with the SAE and its
    index it comes with the package, so nothing is downloaded here.
    """)
    return


@app.cell
def _(open_model, open_sae):
    model = open_model("gemma-3-270m")
    sae = open_sae("gemma-3-270m")
    return model, sae


@app.cell
def _(mo, shipped_names):
    concept = mo.ui.dropdown(shipped_names(), value="sea", label="The concept")
    mo.vstack([mo.md("## 1. A contrast\n\nTexts that show the concept, beside texts that do not."), concept])
    return (concept,)


@app.cell
def _(concept, mo, shipped):
    contrast = shipped(concept.value)
    mo.ui.table(
        [{"positive": p, "negative": n} for p, n in zip(contrast.positive, contrast.negative, strict=False)],
        page_size=4,
        selection=None,
    )
    return (contrast,)


@app.cell
def _(Settings, contrast, find, model, sae, to_json):
    # Half of the pairs are learned from, a quarter chooses, and a quarter that chose nothing says what it is worth.
    # Naming a way to weigh features asks for a recipe of features, though plain vectors often do more (docs/finding.md).
    found = find(model, sae, contrast, Settings(kl=0.5, candidates=1, method="mean_difference"))
    shown = to_json(found)
    return found, shown


@app.cell
def _(found, mo):
    place = found.positions[0]
    mo.md(f"""
    ## 2. Where the sides differ

    Counted from the end of a text, at these positions the two sides differ beyond what shuffled labels give (higher is
    more, dots do not differ):

    `{place.strip()}`

    {len(place.matter)} of {len(place.slots)} positions matter.
    """)
    return


@app.cell
def _(escape, mo, shown, token_mark):
    STYLE = "<style>.show mark{background:rgba(240,130,20,calc(.15 + .6*var(--s)));color:inherit} .show b{font-weight:400}</style>"

    def marked(tokens, strengths, top):
        """Tokens as HTML, marked where something fires."""
        pairs = zip(tokens, strengths or [0.0] * len(tokens), strict=True)
        return f'{STYLE}<span class="show">{"".join(token_mark(t, s, top) for t, s in pairs)}</span>'

    features = shown["features"][0]
    _cards = [
        f"<p><b>{one['index']}</b> · fires on {escape(', '.join(one['words']) or 'nothing shown')} · effect "
        f"{one['effect']:+.2f} · on in {one['coverage']:.0%} of positive texts, {one['other_coverage']:.0%} of negative ones"
        f"<br>{marked(one['examples'][0]['tokens'], one['examples'][0]['values'], one['peak'])}</p>"
        for one in features[:6]
        if one["examples"]
    ]
    mo.vstack(
        [
            mo.md(
                f"## 3. Its features\n\n{len(features)} features fire more on the positive texts, and again on texts that "
                "did not choose them. The first six, each in the text where it fires most:"
            ),
            mo.Html("".join(_cards)),
        ]
    )
    return features, marked


@app.cell
def _(feature_map, features, mo, shown):
    clusters = shown["clusterings"][0]["clusters"]
    said = (
        ", ".join("/".join(one["words"][:3]) for one in clusters)
        if clusters
        else "none: no two features are alike enough"
    )
    mo.vstack(
        [
            mo.md(
                f"## 4. On a map\n\nNear each other: decoder rows that are alike and features that fire together. Clusters: {said}."
            ),
            mo.Html(feature_map(features, clusters)),
        ]
    )
    return


@app.cell
def _(collect, contrast, find, fit, found, groups_of, likelihood_shift, mo, model, neutral, sae):
    # The same features weighed in several ways, each at the same cost, on texts that chose nothing.
    _parts = contrast.split(found.settings.shares, found.settings.seed)
    _train = collect(model, sae, _parts.train)[0]
    _group = groups_of(found.features, found.clusterings, 0).get("all features", ((),))[0]
    _known = neutral(model)
    fits = {}
    for _method in ("mean_difference", "per_prompt", "logistic", "caa"):
        if _method == "caa" or _group:
            _made = fit(_method, _train, sae, list(_group) if _method != "caa" else (), paired=_parts.train.paired)
            fits[_method] = likelihood_shift(model, dict(_made.vectors), _parts.test, kl=0.5, known=_known)
    mo.vstack(
        [
            mo.md(
                "## 5. Weights\n\nHow much likelier each vector makes held-out texts with the concept than those without, in nats per token. "
                "`caa` is the plain difference of means, without any feature: the thing to beat."
            ),
            mo.ui.table(
                [
                    {"method": name, "shift": f"{s.shift:+.3f}", "95 %": f"{s.low:+.3f} to {s.high:+.3f}"}
                    for name, s in fits.items()
                ],
                selection=None,
            ),
        ]
    )
    return (fits,)


@app.cell
def _(found, mo):
    recipe = found.recipe
    mo.stop(recipe is None, mo.md("Nothing was found in this contrast, so there is nothing to steer with."))
    mo.md(f"""
    ## 6. The recipe

    Taken on the texts that choose: **{found.chosen.name}**, {len(recipe.features)} features. On texts that chose nothing:
    {found.test.shift:+.3f} nats per token [{found.test.low:+.3f}, {found.test.high:+.3f}].
    """)
    return (recipe,)


@app.cell
def _(NEUTRAL, Path, draw, measure_dose, mo, model, picture, recipe, sae, tempfile):
    curve = measure_dose(model, recipe, (-1.0, 0.5, 1.0, 2.0), NEUTRAL[:12], sae=sae, texts=6)
    with tempfile.TemporaryDirectory() as _folder:
        draw(Path(_folder) / "dose.svg", picture(curve))
        _drawn = (Path(_folder) / "dose.svg").read_text(encoding="utf-8")
    mo.vstack(
        [
            mo.md(f"## 7. How strong\n\n1 is the recipe as it was found. {curve.in_words()}"),
            mo.Html(_drawn[_drawn.index("<svg") :]),
        ]
    )
    return (curve,)


@app.cell
def _(escape, marked, mo, model, recipe, sae, steered_lines):
    lines = steered_lines(model, [sae], recipe, factors=(-1.0, 0.0, 1.0), max_new_tokens=30)
    _top = max((max(one.strengths) for one in lines if one.strengths), default=0.0)
    mo.vstack(
        [
            mo.md("## 8. Both signs\n\nThe same random numbers on each line; none is picked."),
            mo.Html(
                "".join(
                    f"<p><b>{one.factor:+g}</b> {escape(one.prompt)}{marked(one.tokens, one.strengths, _top)}</p>"
                    for one in lines
                )
            ),
        ]
    )
    return (lines,)


@app.cell
def _(mo, model, recipe, sae, verify):
    evidence = verify(
        model,
        sae,
        recipe,
        ["Once upon a time", "The first thing I noticed was", "Yesterday"],
        samples=6,
        max_new_tokens=24,
        controls=("random", "sign-flipped"),
    )
    _first = f"firing:{evidence.primary}"
    mo.vstack(
        [
            mo.md(
                f"## 9. The proof\n\n**{evidence.verdict}**: {'; '.join(evidence.reasons)}.\n\n"
                "Six texts of each prompt are few: an effect must be large to be told from chance. `samples=20` and more "
                "prompts give a firmer answer."
            ),
            mo.ui.table(
                [
                    {
                        "arm": arm.label,
                        "fires on": f"{arm.scores[_first].mean:.1%}",
                        "nats per token": f"{arm.scores['log_likelihood'].mean:.2f}",
                        "KL": "" if arm.kl is None else f"{arm.kl:.2f}",
                    }
                    for arm in evidence.arms
                ],
                selection=None,
            ),
        ]
    )
    return (evidence,)


@app.cell
def _(Path, Recipe, mo, recipe, tempfile):
    with tempfile.TemporaryDirectory() as _folder:
        _file = Path(_folder) / "mine.recipe.safetensors"
        recipe.save(_file)
        loaded = Recipe.load(_file)
        _bytes = _file.stat().st_size
    mo.md(f"""
    ## 10. Keep it

    Saved as one file of {_bytes / 1e3:.0f} kB and loaded again: {"the same recipe" if loaded == recipe else "NOT the same"}, digest
    `{loaded.digest[:16]}`. It works without the SAE.
    """)
    return (loaded,)


@app.cell
def _(mo):
    strength = mo.ui.slider(-2.0, 2.0, 0.25, value=1.0, label="strength", show_value=True, debounce=True)
    opening = mo.ui.text("Once upon a time", label="opening")
    draws = mo.ui.slider(0, 20, 1, value=0, label="random numbers", show_value=True, debounce=True)
    mo.vstack(
        [
            mo.md(
                "## 11. Your turn\n\nMove the strength; the text is written and marked again, beside the one without the recipe."
            ),
            mo.hstack([opening, strength, draws], justify="start"),
        ]
    )
    return draws, opening, strength


@app.cell
def _(draws, escape, loaded, marked, mo, model, opening, sae, steered_lines, strength):
    _factors = (0.0, strength.value) if strength.value else (0.0,)
    tried = steered_lines(
        model, [sae], loaded, (opening.value or " ",), _factors, max_new_tokens=40, temperature=1.0, seed=draws.value
    )
    _top = max((max(one.strengths) for one in tried if one.strengths), default=0.0)
    mo.Html(
        "".join(
            f"<p><b>{'without' if one.factor == 0 else f'at {one.factor:+g}'}</b><br>{escape(one.prompt)}"
            f"{marked(one.tokens, one.strengths, _top)}</p>"
            for one in tried
        )
    )
    return (tried,)


if __name__ == "__main__":
    app.run()
