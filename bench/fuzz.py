"""Hostile files: every reader of recipes, on mutated files, refuses with a sentence or reads something valid.

    python bench/fuzz.py [--inputs 10000] [--seed 0] [--out results/fuzz.json]

A good file of every format is written and then spoilt: cut off, bytes changed, pieces removed, doubled or replaced
by extreme numbers, NaN, other dtypes, paths, deep nesting; headers that promise more than there is. Anything but one
of trimtab's errors in one line, or a recipe whose every number is finite, counts as a failure, and so does an input
that takes more memory than MEMORY or longer than SECONDS. Failures are kept in --keep. Input n is the same in every
run with the same seed, so that --start and --inputs cut the work into pieces.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import resource
import struct
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import load

from trimtab import Recipe, Scope
from trimtab.errors import TrimtabError
from trimtab.files import write_json
from trimtab.sae.sae import SAE
from trimtab.spec import Site
from trimtab.steer.exchange.formats import FORMATS, export, read
from trimtab.steer.recipe_file import _content

WIDTH, FEATURES = 16, 40
MEMORY = 64  # MiB above what the process has before the first input
SECONDS = 2.0
NAMES = {"neuronpedia-vector": "m", "neuronpedia-steer": "m/1-set", "lm-eval": "random/id"}
NUMBERS = [b"NaN", b"-Infinity", b"1e999", b"1e39", b"-1", b"9" * 400, b"0", b"18446744073709551616", b"null", b'"x"']
WORDS = [
    *(b"../../etc/passwd", b"/dev/zero", b"direction.0", b"direction.99999999", b"\x00", b"\xff\xfe", b"F64", b"I8"),
    *(
        b"float16",
        b"int16",
        b"torch.bfloat16",
        b"zstd",
        b"[" * 3000,
        b"{" * 3000,
        b'"' * 3,
        b"clamp",
        b"project",
        b"{}",
    ),
]
SIZES = [0, 1, 2**31 - 1, 2**32 - 1, 2**40, 2**60, 2**63, 2**64 - 1]


def small_sae() -> SAE:
    """A random SAE of block 1."""
    draw = torch.Generator().manual_seed(0)
    enc, dec = torch.randn(WIDTH, FEATURES, generator=draw), torch.randn(FEATURES, WIDTH, generator=draw)
    return SAE(
        name="random/id", architecture="standard", site=Site(layer=1), model_name=None, W_enc=enc,
        b_enc=torch.zeros(FEATURES), W_dec=dec, b_dec=torch.zeros(WIDTH), max_act=torch.ones(FEATURES),
    )  # fmt: skip


def good_files(sae: SAE, folder: Path) -> dict[str, list[bytes]]:
    """Format -> the bytes of good files; `tensors` has two that belong together."""
    everywhere = Scope(bos=True)
    one = Recipe.add(sae, {3: 1.5}, scope=everywhere)
    two = one + Recipe.vector(torch.arange(1.0, WIDTH + 1), 2, 0.5, scope=everywhere)
    many = two + Recipe.clamp(sae, {5: 2.0}) + Recipe.project(torch.ones(WIDTH), 1)
    found: dict[str, list[bytes]] = {}
    for name, format in FORMATS.items():
        path = folder / f"good{format.suffix}"
        export(
            two if name in ("gguf", "tensors", "steering-vectors", "vllm-lens") else one, path, name, NAMES.get(name)
        )
        found[name] = [path.read_bytes()]
        if name == "tensors":
            found[name].append(path.with_suffix(".json").read_bytes())
    many.save(folder / "good.recipe.safetensors")
    found["recipe"] = [(folder / "good.recipe.safetensors").read_bytes()]
    return found


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def flip(data: bytes, rng: random.Random) -> bytes:
    spoilt = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
    return bytes(spoilt)


def size(data: bytes, rng: random.Random) -> bytes:
    """An extreme integer over 4 or 8 bytes, half of the time near the beginning, where headers are."""
    number = rng.choice(SIZES)
    word = struct.pack("<Q", number) if rng.random() < 0.6 else struct.pack("<I", number % 2**32)
    at = rng.choice([0, 4, 8, 16, rng.randrange(len(data))]) if rng.random() < 0.5 else rng.randrange(len(data))
    return data[:at] + word + data[at + len(word) :]


def piece(data: bytes, rng: random.Random) -> bytes:
    """A piece removed, doubled, or put somewhere else."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    at = rng.randrange(len(data) + 1)
    return rng.choice([data[:a] + data[b:], data[:b] + data[a:], data[:at] + data[a:b] + data[at:]])


def number(data: bytes, rng: random.Random) -> bytes:
    """A number of a text replaced."""
    places = list(re.finditer(rb"-?\d+(?:\.\d+)?(?:e-?\d+)?", data))
    if not places:
        return flip(data, rng)
    place = rng.choice(places)
    return data[: place.start()] + rng.choice(NUMBERS) + data[place.end() :]


def word(data: bytes, rng: random.Random) -> bytes:
    """A word replaced, or something strange put in."""
    places = list(re.finditer(rb"[A-Za-z_.]{3,}", data))
    strange = rng.choice(WORDS)
    if places and rng.random() < 0.7:
        place = rng.choice(places)
        return data[: place.start()] + strange + data[place.end() :]
    at = rng.randrange(len(data) + 1)
    return data[:at] + strange + data[at:]


def floats(data: bytes, rng: random.Random) -> bytes:
    """NaN, infinity or a huge number where float32 numbers may be."""
    at = 4 * rng.randrange(max(len(data) // 4, 1))
    return data[:at] + struct.pack("<f", rng.choice([float("nan"), float("inf"), 3e38, -3e38])) + data[at + 4 :]


def header(data: bytes, rng: random.Random) -> bytes:
    """Of safetensors: the JSON of the header changed, and its length set right, so that it is read."""
    long = int.from_bytes(data[:8], "little")
    if not 2 <= long <= len(data) - 8:
        return flip(data, rng)
    changed = rng.choice([number, word, piece, flip])(data[8 : 8 + long], rng)
    return struct.pack("<Q", len(changed)) + changed + data[8 + long :]


MUTATIONS = (cut, flip, size, piece, number, word, floats, header)


def spoil(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        data = rng.choice(MUTATIONS)(data, rng) or b"\0"
    return data


def fix_sheet(files: list[bytes]) -> list[bytes]:
    """The digest in the JSON set to that of the tensors, as somebody who means harm would write it."""
    digest = hashlib.sha256(files[0]).hexdigest().encode()
    return [files[0], re.sub(rb'"sha256": "[^"]*"', b'"sha256": "' + digest + b'"', files[1])]


def fix_recipe(data: bytes) -> bytes:
    """As `fix_sheet`, for the digest of the tensors in a recipe file; what is no safetensors stays as it is."""
    try:
        digest = _content(load(data)).encode()
    except Exception:
        return data
    return re.sub(rb"(content[^0-9a-f]{1,12})[0-9a-f]{64}", rb"\g<1>" + digest, data)


def judged(format: str, path: Path, sae: SAE) -> str:
    """`valid`, the name of trimtab's error, or what went wrong."""
    try:
        if format == "recipe":
            recipe = Recipe.load(path)
        else:
            recipe, _ = read(path, format, sae)
    except TrimtabError as error:
        return type(error).__name__ if "\n" not in str(error) and len(str(error)) < 2000 else "failure: a long sentence"
    except Exception as error:
        return f"failure: {type(error).__name__}: {traceback.format_exc()}"
    finite = all(bool(t.isfinite().all()) for edit in recipe.edits for t in edit.tensors.values())
    return "valid" if finite and recipe.edits else "failure: numbers that are not finite"


def resident() -> float:
    """Memory of this process now, MiB (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def peak() -> float:
    """The most memory that this process ever had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Spoil, read, count, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the inputs that fail")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    slowest, failures = 0.0, []
    with tempfile.TemporaryDirectory() as name:
        folder, sae = Path(name), small_sae()
        good = good_files(sae, folder)
        for format, files in good.items():  # what is not spoilt is valid, and everything is imported
            assert try_one(format, files, folder, sae) == "valid", format
        before = resident()
        for number in range(args.start, args.start + args.inputs):
            rng = random.Random(args.seed * 10**9 + number)
            format = rng.choice(sorted(good))
            files = list(good[format])
            which = rng.randrange(len(files))
            files[which] = spoil(files[which], rng)
            if format == "tensors" and which == 0:
                files = fix_sheet(files)
            if format == "recipe" and rng.random() < 0.7:
                files = [fix_recipe(files[0])]
            began = time.perf_counter()
            verdict = try_one(format, files, folder, sae)
            took = time.perf_counter() - began
            slowest = max(slowest, took)
            if took > SECONDS:
                verdict = f"failure: {took:.1f} seconds"
            counts.setdefault(format, Counter())[verdict.split(":")[0]] += 1
            if verdict.startswith("failure"):
                failures.append((number, format, verdict))
                if args.keep:
                    args.keep.mkdir(parents=True, exist_ok=True)
                    (args.keep / f"{number}-{format}").write_bytes(files[which])
        grown = peak() - before
    said = {
        "inputs": args.inputs,
        "start": args.start,
        "seed": args.seed,
        "counts": {format: dict(sorted(one.items())) for format, one in sorted(counts.items())},
        "failures": len(failures),
        "slowest_seconds": round(slowest, 3),
        "memory_mib": round(grown, 1),
        "memory_allowed_mib": MEMORY,
    }
    for number, format, verdict in failures[:10]:
        print(f"input {number} ({format}): {verdict}")
    print(said)
    if args.out:
        write_json(args.out, said)
    if failures or grown > MEMORY:
        raise SystemExit(1)


def try_one(format: str, files: list[bytes], folder: Path, sae: SAE) -> str:
    path = folder / f"x{'.safetensors' if format == 'recipe' else FORMATS[format].suffix}"
    path.write_bytes(files[0])
    if len(files) > 1:
        path.with_suffix(".json").write_bytes(files[1])
    return judged(format, path, sae)


if __name__ == "__main__":
    main()
