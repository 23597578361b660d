from __future__ import annotations

import re
from typing import Any

from trimtab.report import dose_figure
from trimtab.report.html import page
from trimtab.report.markdown import markdown

DOSE: dict[str, Any] = {
    "recipe": "r", "recipe_digest": "d", "safe_range": [-1.0, 2.0], "collapse": [None, 4.0], "used": 2.0,
    "unsteered": {"nats": 3.0, "repetition": 0.01, "response": None},
    "points": [
        {"factor": f, "kl": f * f / 10, "kl_error": 0.01, "perplexity": 1 + abs(f) / 10, "repetition": 0.02,
         "response": None}
        for f in (-1.0, 1.0, 2.0, 4.0)
    ],
}  # fmt: skip


def test_panels_are_of_what_was_measured_with_a_dot_for_each_strength_and_for_unsteered() -> None:
    text = dose_figure.figure(DOSE)
    assert text.count("<svg") == 3
    assert "response of the features" not in text
    assert text.count("<circle") == 3 * 5
    assert "2 times: 0.4<" in text
    assert "safe from −1.00 to 2.00 times" in text


def test_places_follow_the_values() -> None:
    """Dots rise with KL and go right with the factor; the line of the strength used goes through its dot."""
    panel = dose_figure.figure(DOSE).split("<svg")[1]
    dots = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', panel)]
    assert [x for x, _ in dots] == sorted(x for x, _ in dots)
    assert dots[-1][1] < dots[-2][1] < dots[-3][1] < dots[1][1]
    (used,) = re.findall(r'class="used" d="M([\d.]+),', panel)
    assert float(used) == dots[3][0]


def test_it_is_on_the_page_and_in_the_markdown_where_it_was_measured(evidence: dict[str, Any]) -> None:
    assert "<svg" not in page([evidence], title="t")
    assert "<svg" in page([{**evidence, "dose": DOSE}], title="t")
    assert "### Dose and response" in markdown([{**evidence, "dose": DOSE}], title="t")
