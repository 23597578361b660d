"""The goals of the engine beside what was measured, with a mark for each."""

from __future__ import annotations

from typing import Any

from tables import table

# (what, goal, rows, ratio in engine.json); a ratio of at least the goal reaches it
RATIOS: tuple[tuple[str, float, int, str], ...] = (
    ("against transformers with a hook", 3.5, 128, "ours_add/transformers_add"),
    ("against transformers with a hook", 3.0, 32, "ours_add/transformers_add"),
    ("against transformers with a hook", 1.5, 1, "ours_add/transformers_add"),
    ("a decoding step, against its bare products as torch has them", 0.85, 128, "ours_plain_steps/products"),
    ("a decoding step, against packed products, the stricter limit", 0.85, 128, "ours_plain_steps/packed_products"),
    ("against llama.cpp with a control vector", 2.0, 128, "ours_add/llama_cpp_add"),
    ("against llama.cpp with a control vector", 2.0, 32, "ours_add/llama_cpp_add"),
)
NEAR = (("float32", "ours_add/llama_cpp_add"), ("bfloat16", "ours_bfloat16_add/llama_cpp_add"))
OVERHEAD = (
    ("a vector on every row, rate against unsteered", 0.98, "ours_add/ours_plain"),
    ("8 latents clamped on every row, rate against unsteered", 0.95, "ours_clamp_8/ours_plain"),
)


def goals(results: dict[str, Any]) -> str:
    """A Markdown table; what was not measured is said not to be."""
    lines = []
    engine = {one["rows"]: one["ratios"] for one in results.get("engine", [])}
    for what, goal, rows, key in RATIOS:
        ratio = engine.get(rows, {}).get(key)
        lines.append(_line(f"{_rows(rows)}: {what}", goal, ratio))
    for rows in (8, 1):
        for dtype, key in NEAR:
            ratio = engine.get(rows, {}).get(key)
            said = "" if ratio is None else "ahead" if ratio >= 1 else "behind"
            lines.append([f"{_rows(rows)} in {dtype}: against llama.cpp's 4-bit weights", "near", _number(ratio), said])
    whole = results.get("sweep", {}).get("ratio")
    lines.append(_line("a whole sweep, against the tutorials' way", 30, whole))
    for one in results.get("overhead", []):
        for what, goal, key in OVERHEAD:
            lines.append(_line(f"{_rows(one['rows'])}: {what}", goal, one["ratios"][key]))
    if "steps" in results:
        one = results["steps"]
        for (what, goal, _), name in zip(OVERHEAD, ("add", "clamp_8"), strict=True):
            lines.append(_line(f"{_rows(one['rows'])}, processor time: {what}", goal, one["ratios"][name]))
        if (unsteered := one["ratios"].get("packed_products")) is not None:
            what = "processor time: a decoding step, against packed products"
            lines.append(_line(f"{_rows(one['rows'])}, {what}", 0.85, 1 / unsteered))
    long = results.get("rows")
    if long is not None:
        lost = long["missing"] + long["twice"]
        said = "reached" if lost == 0 else "**missed**"
        lines.append([f"{long['wanted']:,} rows with kills: rows lost or there twice", "0", str(lost), said])
        again = long["parts_again"]
        said = "reached" if again["same"] == again["parts"] else "**missed**"
        what = "parts of them, each process's first, written again: the same bytes"
        lines.append([f"{again['parts']} {what}", "all", str(again["same"]), said])
        again = long["again"]
        said = "reached" if again["same"] == again["rows"] else "**missed**"
        lines.append([f"{again['rows']} of them again, in other batches: the same", "all", str(again["same"]), said])
    return table(["", "goal", "measured", ""], lines)


def _line(what: str, goal: float, measured: float | None) -> list[str]:
    if measured is None:
        return [what, f"{goal:g}", "", "not measured"]
    return [what, f"{goal:g}", _number(measured), "reached" if measured >= goal else "**missed**"]


def _number(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3f}" if 0.9 < ratio < 1.1 else f"{ratio:.2f}"


def _rows(n: int) -> str:
    return f"{n} row" if n == 1 else f"{n} rows"
