"""The tables of docs/performance.md, each from the JSON of one benchmark."""

from __future__ import annotations

from typing import Any

NAMES = {
    "tutorial": "TransformerLens with a hook, one prompt at a time",
    "transformers_add": "transformers `generate` with a hook",
    "llama_cpp": "llama.cpp, 4-bit weights, unsteered",
    "llama_cpp_add": "llama.cpp, 4-bit weights, control vector",
    "ours_plain": "trimtab, unsteered",
    "ours_plain_steps": "... after the prompts' pass",
    "ours_add": "trimtab, a vector on every row",
    "ours_clamp_8": "trimtab, 8 latents clamped on every row",
    "ours_bfloat16_add": "trimtab in bfloat16, a vector on every row",
    "products": "the matrix products alone, as torch has them",
    "packed_products": "the matrix products alone, weights packed for oneDNN",
}
RATIOS = {
    "ours_add/transformers_add": "steered, against transformers with a hook",
    "ours_plain_steps/products": "a decoding step, against its bare products as torch has them",
    "ours_plain_steps/packed_products": "a decoding step, against its bare products with packed weights",
    "ours_bfloat16_add/ours_add": "bfloat16 against float32",
    "ours_add/llama_cpp_add": "steered, against llama.cpp with a control vector",
    "ours_bfloat16_add/llama_cpp_add": "steered in bfloat16, against llama.cpp with a control vector",
    "ours_add/tutorial": "steered, against TransformerLens one at a time",
}


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose first column is text and the others numbers."""
    line = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, line, *rows))


def engine(said: dict[str, Any]) -> str:
    """Rates and ratios by number of rows."""
    results = said["results"]
    head = [f"{one['rows']} row{'s' if one['rows'] > 1 else ''}" for one in results]

    def line(label: str, kind: str, key: str, form: str) -> list[str]:
        return [label, *(format(one[kind][key], form) if key in one[kind] else "" for one in results)]

    rates = [line(label, "tokens_per_second", key, ".1f") for key, label in NAMES.items()]
    ratios = [line(label, "ratios", key, ".2f") for key, label in RATIOS.items()]
    ratios = [row for row in ratios if any(row[1:])]
    loads = [["load of the machine meanwhile", *(f"{min(one['load'])} to {max(one['load'])}" for one in results)]]
    return (
        _machine(said["about"])
        + f" {results[0]['tokens']} new tokens for each row, prompts of 15 tokens.\n\n"
        + table(["tokens per second", *head], rates + loads)
        + "\n\n"
        + table(["ratio (median of the rounds)", *head], ratios)
    )


def overhead(said: dict[str, Any]) -> str:
    """What steering costs: many short rounds of our engine with itself."""
    keys = {
        "ours_add/ours_plain": "a vector on every row, prompts' pass included",
        "ours_add_steps/ours_plain_steps": "a vector on every row, decoding steps",
        "ours_clamp_8/ours_plain": "8 latents clamped on every row, prompts' pass included",
        "ours_clamp_8_steps/ours_plain_steps": "8 latents clamped on every row, decoding steps",
    }
    results = said["results"]
    rows = [[label, *(f"{one['ratios'][key]:.3f}" for one in results)] for key, label in keys.items()]
    rounds = len(results[0]["rounds"]["ours_plain"])
    head = [f"rate against unsteered, median of {rounds} rounds", *(f"{one['rows']} rows" for one in results)]
    return table(head, rows)


def steps(said: dict[str, Any]) -> str:
    """What steering costs in processor time of decoding steps."""
    one = said["results"]
    names = {"add": "a vector on every row", "clamp_8": "8 latents clamped on every row"}
    if "packed_products" in one["ratios"]:
        names["packed_products"] = "the products of a step alone, packed weights"
    rows = [
        [label, f"{one['ratios'][name]:.3f}", *(f"{pick(_ratios(one, name)):.3f}" for pick in (min, max))]
        for name, label in names.items()
    ]
    head = [f"{one['rows']} rows, processor time of a step, load {one['load']}: unsteered / this"]
    return table([*head, f"median of {one['rounds']} rounds", "lowest", "highest"], rows)


def _ratios(one: dict[str, Any], name: str) -> list[float]:
    times = one["milliseconds"]
    return [a / b for a, b in zip(times["plain"], times[name], strict=True)]


def sweep(said: dict[str, Any]) -> str:
    """Our sweep against the scaled time of the tutorials' way."""
    one = said["results"]
    times = one["tutorial_seconds_per_text"]
    return table(
        ["480 + 8 texts of 60 tokens", ""],
        [
            ["`trimtab sweep`, seconds", f"{one['seconds']:.0f}"],
            ["... tokens per second", f"{one['tokens_per_second']:.0f}"],
            ["... seconds that `--dry-run` promised", f"{one['seconds_promised_by_dry_run']:.0f}"],
            ["tutorials' way, seconds per text, before and after", f"{times[0]:.1f}, {times[1]:.1f}"],
            [f"... scaled from {one['tutorial_texts_timed']} to 480 texts", f"{one['tutorial_seconds_scaled']:.0f}"],
            ["**ratio**", f"**{one['ratio']:.0f}**"],
            ["load of the machine", f"{one['load']:.1f}"],
        ],
    )


def curves(said: dict[str, Any]) -> str:
    """Time and memory of every point."""
    results = said["results"]
    points = [one for name in ("rows", "tokens", "recipes", "latents") for one in results.get(name, [])]
    rows = [
        [
            *(f"{one[key]:,}" for key in ("rows", "tokens", "recipes", "latents")),
            f"{one['seconds']:.1f}",
            f"{one['tokens_per_second']:.0f}",
            f"{one['peak_megabytes']:.0f}",
            f"{one['load']:.1f}",
        ]
        for one in points
    ]
    head = ["rows", "tokens", "recipes", "latents", "seconds", "tokens/s", "peak MB", "load"]
    text = table(head, rows)
    if "sweep" in results:
        long = results["sweep"]
        memory = table(
            ["rows done", "peak MB"], [[f"{done:,}", f"{megabytes:.0f}"] for done, megabytes in long["peak_megabytes"]]
        )
        text += (
            f"\n\nA sweep of {long['rows']:,} rows of {long['tokens']} tokens on a tiny random model "
            f"({long['seconds']:.0f} s, {long['folder_megabytes']:.1f} MB of Parquet):\n\n{memory}"
        )
    return text


def rows(said: dict[str, Any]) -> str:
    """A sweep of 10,000 rows: what is there, what came out the same again, and memory over time."""
    one = said["results"]
    again, alone = one["again"], one["alone"]
    facts = table(
        [f"{one['wanted']:,} rows of up to 60 tokens", ""],
        [
            ["processes that were killed on the way", f"{len(one['process_seconds']) - 1}"],
            ["rows missing, rows there twice", f"{one['missing']}, {one['twice']}"],
            ["tokens written", f"{one['tokens']:,}"],
            ["seconds of all processes, lost work included", f"{sum(one['process_seconds']):,}"],
            ["tokens per second", f"{one['tokens_per_second']:.0f}"],
            [
                f"of {one['parts_again']['parts']} parts that another process wrote again, the same bytes",
                f"{one['parts_again']['same']}",
            ],
            [f"of {again['rows']} rows, in other batches the same", f"{again['same']}"],
            [f"of {alone['rows']} rows, alone the same", f"{alone['same']}"],
        ],
    )
    curve = one["memory"]
    chosen = curve[:: max(1, len(curve) // 16)]
    memory = [[str(line[0]), str(line[1]), f"{line[3]:,}", f"{line[2]:,}"] for line in chosen]
    processes = []
    for number, parts in enumerate(one["highest_in_parts"], 1):
        thousands = (len(parts) - 2) * one["rows_in_part"] / 1000
        growth = f"{(parts[-1] - parts[1]) / thousands:.1f}" if thousands > 0 else ""
        of_parts = (f"{megabytes:,}" for megabytes in (*parts[:2], parts[-1], max(parts)))
        processes.append([str(number), str(len(parts)), *of_parts, growth])
    head = ["process", "parts begun", "highest MB in its first part", "second", "last", "any"]
    of_processes = table([*head, "growth in 1,000 rows after the second"], processes)
    return f"{facts}\n\n{of_processes}\n\n{table(['seconds', 'process', 'rows done', 'resident MB'], memory)}"


def tried(said: dict[str, Any]) -> str:
    """Formats of the weights, torch.compile and a shared beginning of prompts: what was measured of each."""
    results, out = said["results"], []
    if "formats" in results:
        names = {name: one for name, one in results["formats"].items() if isinstance(one, dict)}
        counts = list(next(one["milliseconds"] for one in names.values() if "milliseconds" in one))
        lines = [
            [
                name,
                *(f"{one['milliseconds'][n]:.1f}" if "milliseconds" in one else "refused" for n in counts),
                f"{one['kl']:.2g}" if "kl" in one else "",
            ]
            for name, one in names.items()
        ]
        head = [
            f"products of one step, processor ms (load {results['formats']['load']})",
            *map(_rows, counts),
            "KL, nats",
        ]
        out.append(table(head, lines))
    if "compiled" in results:
        lines = [
            [
                _rows(n),
                f"{one['ours_ms']:.0f}",
                f"{one['compiled_ms']:.0f}",
                f"{one['ours_ms'] / one['compiled_ms']:.2f}",
                f"{one['compile_seconds']:.0f}",
            ]
            for n, one in results["compiled"].items()
            if isinstance(one, dict)
        ]
        head = [
            f"one step (load {results['compiled']['load']})",
            "ours, processor ms",
            "compiled",
            "gain",
            "compiling, s",
        ]
        out.append(table(head, lines))
    if "prefix" in results:
        one = results["prefix"]
        saved = one["prompts_seconds"] - one["prompts_seconds_if_shared"]
        first = f"{one['prompts']} prompts, {one['common']} of 210 tokens in common, {one['samples']} samples"
        out.append(
            table(
                [f"{first} of {one['tokens']} tokens", "processor seconds"],
                [
                    ["the whole run", f"{one['run_seconds']:.1f}"],
                    ["reading the prompts, each for itself", f"{one['prompts_seconds']:.2f}"],
                    ["... if the common tokens were read once", f"{one['prompts_seconds_if_shared']:.2f}"],
                    ["saved, of the whole run", f"{100 * saved / one['run_seconds']:.0f} %"],
                ],
            )
        )
    return "\n\n".join(out)


def _rows(n: str) -> str:
    return f"{n} row" if n == "1" else f"{n} rows"


def _machine(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"{about['model']} in {about['dtype']} on {about['cores']} cores of an {about['processor']} "
        f"({about['instructions']}), {about['threads']} threads; {versions}."
    )
