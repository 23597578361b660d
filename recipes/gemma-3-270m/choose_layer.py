"""Compare candidate layers: what a small SAE reconstructs there, and how far its features move the output.

    python recipes/gemma-3-270m/choose_layer.py corpus.jsonl --heldout val.jsonl --layers 7 8 9 11 13 --out runs/layers

For each layer: FVU, L0 and cross-entropy recovered of a 4,096-feature SAE; over 24 live features, drawn with a fixed
seed, the mean KL (nats a token) between the unsteered model and the model with the feature added at once its maximum
activation; and their mean output score.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from trimtab.find.output import output_scores
from trimtab.lm.load import Model, open_model
from trimtab.lm.texts import iter_texts
from trimtab.sae.activations import harvest
from trimtab.sae.card import write_card
from trimtab.sae.load import open_sae
from trimtab.sae.train import TrainSpec, fit
from trimtab.spec import Site
from trimtab.steer.recipe import Recipe
from trimtab.steer.strength import costs_of

FEATURES = 24


def measure(model: Model, layer: int, acts: Path, arguments: argparse.Namespace) -> str:
    """Train one small SAE and return its line of the table."""
    site = Site(layer=layer)
    found = harvest(model, arguments.texts, [Site(layer=n) for n in arguments.layers], acts, tokens=arguments.tokens)
    spec = TrainSpec(layer=layer, width=4096, k=38, tokens=arguments.tokens, samples=arguments.samples, lr=8e-4)
    metadata = {"model_name": model.name, "hook_name": f"blocks.{layer}.hook_resid_post", "hf_hook_name": str(site)}
    folder = fit(found, site, spec, arguments.out / f"layer-{layer}", metadata=metadata)
    card = write_card(model, folder, found, site, heldout=arguments.heldout, about={})
    sae = open_sae(str(folder))
    assert sae.density is not None
    live = ((sae.density > 1e-4) & (sae.density < 0.02)).nonzero().squeeze(1)
    chosen = live[torch.randperm(len(live), generator=torch.Generator().manual_seed(0))[:FEATURES]].tolist()
    neutral = [text.text[:160] for text, _ in zip(iter_texts(arguments.heldout), range(4), strict=False)]
    added = [Recipe.add(sae, {feature: 1.0}) for feature in chosen]
    kl = torch.tensor([cost.kl for cost in costs_of(model, added, neutral, places=40)])
    output = torch.tensor([one.score for one in output_scores(model, sae, chosen)])
    return (
        f"| {layer} | {card['fvu']:.3f} | {card['l0']:.1f} | {card['ce_recovered']:.4f} "
        f"| {kl.median():.3f} | {output.mean():.4f} |"
    )


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--heldout", nargs="+", required=True)
    parser.add_argument("--layers", nargs="+", type=int, default=[7, 8, 9, 11, 13])
    parser.add_argument("--tokens", type=int, default=450_000)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    model = open_model("gemma-3-270m")
    print("| layer | FVU | L0 | CE recovered | KL at 1 x max | output score |\n|---|---|---|---|---|---|")
    for layer in arguments.layers:
        print(measure(model, layer, arguments.out / "activations", arguments), flush=True)


if __name__ == "__main__":
    main()
