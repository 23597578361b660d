"""`trimtab models` and `trimtab saes`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trimtab.lm.sites import BLOCKS
from trimtab.sae import shipped


def test_models_lists_every_architecture_and_the_terms(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    found = json.loads(run("models", "--json").stdout)
    assert [one["model_type"] for one in found["architectures"]] == list(BLOCKS)
    (default,) = found["models"]
    assert (default["name"], default["folder"]) == ("gemma-3-270m", str(tmp_path / "models" / "gemma-3-270m-v1"))
    assert "converted on first use" in default["state"]
    text = run("models").stdout
    assert all(kind in text and path in text for kind, path in BLOCKS.items())
    assert "ai.google.dev/gemma/terms" in text


def test_saes_shows_each_card(
    run: Any, sae_folder: Path, card: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = sae_folder / "card.json"
    file.write_text(json.dumps({**card, "why_this_layer": "It reads best."}), encoding="utf-8")
    monkeypatch.setattr(shipped, "SHIPPED", sae_folder.parent)
    text = run("saes").stdout
    assert "own  standard, 24 features of width 16" in text
    assert "of tiny at blocks.1.hook_resid_post" in text
    assert "FVU 0.091 (0.200 without the largest dimension) at L0 32.0, on 100,000 tokens of val.jsonl" in text
    assert "cross-entropy recovered 0.9898 (3.900 clean, 4.100 spliced, 23.600 zeroed)" in text
    assert "95.0% of features fired on 1,000,000 tokens" in text
    assert "trained on 8,000,000 tokens, 12,000,000 samples (4,000 tokens/s model, 7,000 samples/s SAE)" in text
    assert "It reads best." in text
    (listed,) = json.loads(run("saes", "--json").stdout)
    assert listed["card"]["trained"] == card["trained"]
    file.unlink()


def test_search_finds_registry_names(run: Any) -> None:
    found = run("saes", "--search", "GPT2-small-res-jb/blocks.8").stdout.split()
    assert "gpt2-small-res-jb/blocks.8.hook_resid_pre" in found
    assert all("gpt2-small-res-jb/blocks.8" in name for name in found)
    scope = run("saes", "--search", "gemma-scope-2-270m-pt")
    releases = {name.split("/")[0] for name in scope.stdout.split()}
    assert releases == {"gemma-scope-2-270m-pt-res", "gemma-scope-2-270m-pt-res-all"}
    assert "more read another place than the residual stream" in scope.stderr
    attention = run("saes", "--search", "hook_attn_out")
    assert (attention.exit_code, attention.stdout) == (2, "")
    nothing = run("saes", "--search", "no such thing")
    assert nothing.exit_code == 2
    assert "'no such thing'" in nothing.stderr
