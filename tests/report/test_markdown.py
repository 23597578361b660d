from __future__ import annotations

import copy
from typing import Any

import pytest

from trimtab.errors import InputError
from trimtab.evidence.values import Evidence
from trimtab.report import tables
from trimtab.report.html import page
from trimtab.report.markdown import markdown


def test_it_has_every_sample_and_the_numbers_of_the_page(evidence: dict[str, Any]) -> None:
    text, shown = markdown([evidence], title="t"), page([evidence], title="t")
    lines = text.split("\n")
    marked = [line for line in lines if line.startswith(("- 1, ", "- 2, ", "- 3, "))]
    assert len(marked) == len(evidence["samples"])
    grid = tables.arms(evidence)
    for name, cells in grid.rows:
        (row,) = [
            line for line in lines if line.startswith(f"| {name} |") and line.count("|") == len(grid.headings) + 1
        ][:1]
        for cell in cells:
            assert cell.text in row
            assert cell.text in shown


def test_bold_is_where_the_feature_fires(evidence: dict[str, Any]) -> None:
    text = markdown([evidence], title="t")
    place = tables.place(evidence)
    fires = sum(s > 0 for one in evidence["samples"] for s in one["strengths"][place])
    assert fires > 0
    assert text.split("### All samples")[1].count("**") == 2 * fires


def test_what_others_wrote_cannot_become_markup(evidence: dict[str, Any]) -> None:
    hostile = copy.deepcopy(evidence)
    attack = "<script>x</script> [a](http://b) | **c** `d`\n# e"
    hostile["reasons"][0] = hostile["made"]["prompts"][0] = attack
    hostile["samples"][0]["tokens"][0] = attack
    text = markdown([hostile], title=attack)
    assert "<script>" not in text
    assert "](http" not in text.replace("\\]", "")
    assert "\n# e" not in text


def test_several_and_none(evidence: dict[str, Any]) -> None:
    assert markdown([evidence, evidence], title="t").count("\n## ") == 2
    assert Evidence.parse(evidence).to_markdown() == markdown([evidence], title=evidence["question"])
    with pytest.raises(InputError):
        markdown([], title="t")
