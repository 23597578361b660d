"""Opening a language model."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import FileError, InputError, StorageError, UnsupportedError
from trimtab.lm import gemma
from trimtab.lm.model import Model, Steering, fingerprint, wrap

if TYPE_CHECKING:
    import torch

__all__ = ["DTYPES", "Model", "Steering", "fingerprint", "open_model", "wrap"]

DTYPES = ("float32", "bfloat16", "float16", "auto")


def open_model(
    name_or_path: str | Path,
    *,
    device: str | None = None,
    dtype: str | None = None,
    blocks: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Model:
    """Open a causal language model.

    `name_or_path`: "gemma-3-270m" (needs no network), a local folder in transformers' layout, or a Hugging Face id.
    `device`: "cpu", "cuda", "cuda:1" or "mps"; None takes a CUDA device if there is one. `dtype`: "float32",
    "bfloat16", "float16", or "auto" for that of the files; None is float32 on a CPU and "auto" elsewhere. `blocks`
    names the list of residual blocks of an unknown architecture. `say` receives a line for each slow step.

    Raises `InputError` for a wrong device, dtype or `blocks`, and `FileError` for a model that is missing or damaged.
    """
    place = _device(device)
    chosen = dtype if dtype is not None else ("float32" if place.type == "cpu" else "auto")
    if chosen not in DTYPES:
        raise InputError(f"Unknown dtype {dtype!r}. Valid: {', '.join(DTYPES)}.")
    name = str(name_or_path)
    source = gemma.prepare(say or (lambda _: None)) if name == gemma.NAME else _source(name)
    hf, tokenizer = _load(str(source), chosen, name)
    try:
        hf = hf.to(place)
    except RuntimeError as error:
        raise UnsupportedError(f"{name} does not fit on {place}: {_first_line(error)}") from error
    return wrap(hf, tokenizer, name, blocks=blocks)


def _device(name: str | None) -> torch.device:
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
    except RuntimeError:
        raise InputError(f"Unknown device {name!r}. Valid: cpu, cuda, cuda:0, mps.") from None
    there = {
        "cpu": True,
        "cuda": (place.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if place.type not in there:
        raise InputError(f"Unknown device {name!r}. Valid: cpu, cuda, cuda:0, mps.")
    if not there[place.type]:
        raise InputError(f"This machine has no device {name!r}; use device='cpu'.")
    return place


def _source(name: str) -> str:
    """Check what can be checked before transformers is imported."""
    if not name.strip():
        raise FileError("The name of the model is empty; there is no model folder ''.")
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise FileError(f"{path} is not a model folder: it has no config.json.")
        return str(path)
    if path.exists():
        raise FileError(f"{path} is a file; a model is a folder with config.json, weights and tokenizer.")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise FileError(f"There is no model folder {name!r}.")
    return name


def _load(source: str, dtype: str, name: str) -> tuple[Any, Any]:
    with _quiet():
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer

        local = Path(source).is_dir() or not _hub_answers(source)
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
            hf, info = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, local_files_only=local, output_loading_info=True
            )
        except SafetensorError as error:
            raise FileError(f"The weights of {name} are damaged or cut short ({error}); get them again.") from error
        except OSError as error:
            raise _unavailable(source, name, error) from error
        except (ValueError, KeyError, RuntimeError, TypeError) as error:
            raise FileError(f"{name} cannot be opened as a causal language model: {_first_line(error)}") from error
    wrong = sorted({*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])})
    if wrong:
        raise FileError(f"The weights of {name} are incomplete: {len(wrong)} do not fit, such as {wrong[0]}.")
    return hf, tokenizer


def _hub_answers(name: str) -> bool:
    """Whether the Hugging Face hub can be reached; without asking, transformers would retry for a minute.

    When it cannot, a model that was downloaded before still opens. A hub that refuses the name has answered.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(name, timeout=10)
    except HfHubHTTPError:
        return True
    except Exception:  # whatever the HTTP library raises when there is no network
        return False
    return True


def _unavailable(source: str, name: str, error: OSError) -> FileError | StorageError:
    if error.errno == errno.ENOSPC:
        return StorageError(f"The disk is full: {name} could not be downloaded.")
    if Path(source).is_dir():
        return FileError(f"The model folder {name} is incomplete or damaged: {_first_line(error)}")
    return FileError(
        f"The model {name!r} is not a local folder and could not be fetched from the Hugging Face hub (a wrong name, "
        f"no network, or access not granted). {gemma.NAME!r} works without a network."
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".") + "."


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or notices from transformers (downloads keep theirs), and its settings as they were after."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
