from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.steer.edits import KEEP, added_change, dual, law, obey, projected_change

numbers = st.floats(-1e4, 1e4, width=32)


@settings(deadline=None)
@given(f=numbers, value=numbers)
def test_each_operation_is_what_its_name_says(f: float, value: float) -> None:
    expected = {
        "clamp": value,
        "ablate": 0.0,
        "scale": f * value,
        "min": max(f, value),
        "max": min(f, value),
        "project": value,
    }
    for op, wanted in expected.items():
        found = obey(torch.full((1, 1, 1), f), law(op, torch.tensor([value])))  # type: ignore[arg-type]
        assert found.item() == pytest.approx(wanted, rel=1e-6), op


def test_laws_may_differ_between_rows() -> None:
    f = torch.tensor([[[1.0, 5.0]], [[1.0, 5.0]]])
    laws = torch.stack([law("min", torch.tensor([2.0, 2.0])), law("scale", torch.tensor([3.0, 0.0]))], dim=1)
    assert obey(f, laws).tolist() == [[[2.0, 5.0]], [[3.0, 0.0]]]


def test_the_law_that_pads_changes_nothing_at_all() -> None:
    f = torch.randn(2, 3, 4) * 1e6
    assert torch.equal(obey(f, torch.tensor(KEEP)[:, None].expand(4, 4)), f)


def test_added_vectors_are_exact_and_relative_ones_follow_the_norm_of_their_position() -> None:
    h = torch.randn(2, 3, 8)
    vector = torch.randn(2, 8)
    assert torch.equal(added_change(h, vector, None), vector[:, None].expand(2, 3, 8))
    relative = added_change(h, None, vector)
    for row in range(2):
        for token in range(3):
            torch.testing.assert_close(relative[row, token], h[row, token].norm() * vector[row])


def test_projection_of_one_direction_is_directional_ablation() -> None:
    h, v = torch.randn(2, 3, 8), torch.nn.functional.normalize(torch.randn(8), dim=0)
    change = projected_change(h, v[None, None], dual(v[None])[None], law("project", torch.zeros(1))[:, None])
    torch.testing.assert_close(h + change, h - (h @ v)[..., None] * v)


def test_projection_of_oblique_directions_sets_all_of_them_at_once() -> None:
    h = torch.randn(2, 3, 8)
    a = torch.nn.functional.normalize(torch.randn(8), dim=0)
    b = torch.nn.functional.normalize(a + 0.5 * torch.randn(8), dim=0)
    lines = torch.stack([a, b])
    targets = law("project", torch.tensor([2.0, -1.0]))[:, None]
    moved = h + projected_change(h, lines[None], dual(lines)[None], targets)
    torch.testing.assert_close(moved @ lines.T, torch.tensor([2.0, -1.0]).expand(2, 3, 2), rtol=1e-4, atol=1e-4)
