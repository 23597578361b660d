"""The README's Python runs as it stands, here on a tiny model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import trimtab
from trimtab.sae.sae import SAE
from trimtab.testing.models import tiny_model

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model("gemma3_text", d_model=16, n_layers=2)
    draw, n = torch.Generator().manual_seed(0), 11_400
    sae = SAE(
        name="tiny", architecture="standard", site=trimtab.Site(layer=1), model_name=None,
        W_enc=torch.randn(16, n, generator=draw), b_enc=torch.zeros(n), W_dec=torch.randn(n, 16, generator=draw),
        b_dec=torch.zeros(16), max_act=torch.ones(n), density=torch.full((n,), 0.1),
    )  # fmt: skip
    opened: list[Any] = []
    monkeypatch.setattr(trimtab, "open_model", lambda name: opened.append(name) or model)
    monkeypatch.setattr(trimtab, "open_sae", lambda name: opened.append(name) or sae)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert opened == ["gemma-3-270m", "gemma-3-270m"]
    assert (tmp_path / "report.html").is_file()
    assert "feature 11330 fires on" in capsys.readouterr().out


def test_links_point_to_something() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    missing = [link for link in links if not (Path(__file__).parents[1] / link).exists()]
    assert missing == []
