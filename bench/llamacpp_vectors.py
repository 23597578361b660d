"""Does a control vector that trimtab exports do in llama.cpp what the recipe does in trimtab?

    python bench/llamacpp_vectors.py gemma.gguf [--contexts 200] [--length 12] [--out results/llamacpp_vectors.json]

Recipes are exported with `trimtab.steer.exchange`, the files are read back by the rules of llama.cpp's own loader
(`direction.N` at place N - 1 of the buffer), and handed to llama.cpp (`pip install xllamacpp`) on the very GGUF that
our weights come from. For every context, the shift of the next-token logits, steered minus unsteered, is compared
between the two engines over the whole vocabulary.

They cannot be equal: llama.cpp multiplies integers of 4 to 8 bits, weights and activations, and ours the dequantised
weights in float32. How much of the difference that is, is measured by running llama.cpp once more on the same weights
dequantised (written to the folder WORK once, 4 bytes a weight), where its products are float32 too.

Contexts are drawn from our own model at temperature 1, with a seed. Each finished context is a line of
WORK/parts.jsonl, so a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from llamacpp import Llama
from machine import about
from torch import Tensor

from trimtab import Model, Recipe, Scope, generate, open_model, open_sae
from trimtab.files import write_file, write_json
from trimtab.steer.exchange.formats import export
from trimtab.steer.exchange.gguf_vectors import parse

STARTS = ("The", "In", "A", "When", "It was", "My", "For the", "At first", "On", "There is")
STRENGTHS = (0.5, 1.0, 2.0)


def contexts(model: Model, count: int, length: int) -> list[list[int]]:
    """Token ids, BOS first: short beginnings continued by the model itself."""
    each = -(-count // len(STARTS))
    return [list(one.token_ids) for one in generate(model, list(STARTS), samples=each, max_new_tokens=length)][:count]


def dequantised(gguf: Path, target: Path) -> Path:
    """The same model with every weight as the float32 that it stands for."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter
    from gguf.quants import dequantize

    if target.exists():
        return target
    reader = GGUFReader(gguf)
    with write_file(target) as part:
        writer = GGUFWriter(part, reader.fields["general.architecture"].contents())
        for name, field in reader.fields.items():
            if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
                continue
            inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
        for tensor in reader.tensors:
            writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return target


def ours(model: Model, recipe: Recipe | None, ids: list[int]) -> Tensor:
    """Our next-token logits [vocabulary] after one context."""
    batch = torch.tensor([ids])
    with torch.no_grad():
        if recipe is None:
            return model.hf(batch, logits_to_keep=1).logits[0, -1].float()
        with model.edited(recipe):
            return model.hf(batch, logits_to_keep=1).logits[0, -1].float()


def as_llama_reads(recipe: Recipe) -> tuple[int, list[float]]:
    """Block and vector of the exported file, as llama.cpp's loader understands it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vector.gguf"
        export(recipe, file, "gguf", "gemma3")
        ((name, tensor),) = parse(file.read_bytes())[1].items()
    return int(name.removeprefix("direction.")), tensor.tolist()


def compared(shift: Tensor, theirs: Tensor) -> dict[str, float]:
    """Pearson's correlation of two shifts, the ratio of their lengths, and the length of their difference."""
    return {
        "correlation": float(torch.corrcoef(torch.stack([shift.double(), theirs.double()]))[0, 1]),
        "ratio": float(theirs.norm() / shift.norm()),
        "difference": float((theirs - shift).norm() / shift.norm()),
    }


def measure(
    model: Model, recipes: dict[str, Recipe], files: dict[str, Path], chosen: list[list[int]], parts: Path
) -> list[dict[str, Any]]:
    """One line for each context; those that are in `parts` are not done again."""
    done = [json.loads(line) for line in parts.read_text(encoding="utf-8").splitlines()] if parts.exists() else []
    words, longest, threads = model.hf.config.vocab_size, max(map(len, chosen)) + 1, torch.get_num_threads()
    plain, steered = ({name: Llama(file, 1, longest, threads) for name, file in files.items()} for _ in range(2))
    pushes = {name: as_llama_reads(recipe) for name, recipe in recipes.items()}
    for number, ids in enumerate(chosen):
        if number < len(done):
            if done[number]["ids"] != ids:
                raise SystemExit(f"{parts} is of other contexts: take it away.")
            continue
        base = ours(model, None, ids)
        theirs = {name: torch.tensor(llama.logits(ids, words)) for name, llama in plain.items()}
        line: dict[str, Any] = {"ids": ids}
        line["unsteered"] = {name: compared(base, logits) for name, logits in theirs.items()}
        for name, recipe in recipes.items():
            shift = ours(model, recipe, ids) - base
            layer, vector = pushes[name]
            line[name] = {}
            for file, llama in steered.items():
                llama.steer(vector, layer, model.n_layers)
                line[name][file] = compared(shift, torch.tensor(llama.logits(ids, words)) - theirs[file])
        done.append(line)
        with parts.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
    return done


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Over contexts: the median and the worst of each number, and how often the correlation is above 0.99."""
    said: dict[str, Any] = {"contexts": len(lines)}
    for name in [key for key in lines[0] if key != "ids"]:
        said[name] = {}
        for file in lines[0][name]:
            values = [line[name][file] for line in lines]
            correlations = [one["correlation"] for one in values]
            said[name][file] = {key: statistics.median(one[key] for one in values) for key in values[0]} | {
                "least_correlation": min(correlations),
                "above_0.99": sum(one > 0.99 for one in correlations) / len(lines),
            }
    return said


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--contexts", type=int, default=200)
    parser.add_argument("--length", type=int, default=12)
    parser.add_argument("--feature", type=int, default=11330)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "llamacpp_vectors.json")
    parser.add_argument("--work", type=Path, default=Path("build/llamacpp_vectors"))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    files = {"gguf": args.gguf, "dequantised": dequantised(args.gguf, args.work / f"{args.gguf.stem}.f32.gguf")}
    model, sae = open_model("gemma-3-270m"), open_sae("gemma-3-270m")
    recipes = {
        f"add {strength:g} max_act": Recipe.add(sae, {args.feature: strength}, scope=Scope(bos=True))
        for strength in STRENGTHS
    }
    chosen = contexts(model, args.contexts, args.length)
    said = summary(measure(model, recipes, files, chosen, args.work / "parts.jsonl"))
    print(json.dumps(said, indent=2))
    write_json(args.out, {"about": about(model), "feature": args.feature, "results": said})


if __name__ == "__main__":
    main()
