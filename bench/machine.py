"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from trimtab.lm.model import Model

PACKAGES = ("torch", "transformers", "transformer-lens", "sae-lens", "xllamacpp")


def about(model: Model) -> dict[str, Any]:
    """Model, processor, threads and versions."""
    return {
        "model": model.name,
        "dtype": str(model.dtype).removeprefix("torch."),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def peak_megabytes() -> float:
    """The most memory that this process has had at one time."""
    most = status_kilobytes("VmHWM", os.getpid())
    if most:
        return most / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def status_kilobytes(name: str, process: int) -> int:
    """One entry of what Linux says about a process, such as VmRSS; 0 where it says nothing."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
