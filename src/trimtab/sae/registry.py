"""SAEs by the names of SAELens' registry, fetched from the Hugging Face hub through SAELens' own code.

sae_lens takes many seconds to import, so names are checked first, in the list that it ships. Gemma Scope's files are
fetched with huggingface_hub, as sae_lens does, but read by `formats`: sae_lens' loader of Gemma Scope 2 asks the hub
for tensor shapes even when all files are in the cache. So are SAEs in repositories that are not in the registry.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

from trimtab.errors import FileError, InputError, TrimtabError, UnsupportedError
from trimtab.sae.formats import read_sae
from trimtab.sae.sae import SAE
from trimtab.sae.saelens import Source, convert

# Words of names and paths that say that an SAE reads something else than the residual stream between blocks.
_ELSEWHERE = re.compile(r"(^|[-_./])(attn?|mlp|lx[am]|z|mid|embedding|transcoders?|clt|temporal)(?=$|[-_./])")
_LAYOUTS = ("*.json", "*.safetensors", "*.npz")


@dataclass(frozen=True)
class Release:
    """A release in SAELens' registry: where it lives on the hub, and its SAEs as id -> folder."""

    name: str
    repo: str
    loader: str
    paths: Mapping[str, str]

    def fits(self, sae_id: str) -> bool:
        """Whether it is, by its name and path, an SAE of the residual stream between blocks, which alone are used."""
        return not _ELSEWHERE.search(f"{self.name}/{sae_id}/{self.paths[sae_id]}")


@cache
def releases() -> Mapping[str, Release]:
    """Every release that the installed sae_lens knows, by name; reads its list without importing it."""
    import yaml  # type: ignore[import-untyped]

    found = importlib.util.find_spec("sae_lens")
    if found is None or found.origin is None:
        raise UnsupportedError("SAEs by registry name need the sae-lens package: pip install sae-lens.")
    text = Path(found.origin).with_name("pretrained_saes.yaml").read_text(encoding="utf-8")
    listed = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return MappingProxyType(
        {
            name: Release(
                name=name,
                repo=entry["repo_id"],
                loader=entry.get("conversion_func") or "sae_lens",
                paths=MappingProxyType({str(sae["id"]): str(sae["path"]) for sae in entry["saes"]}),
            )
            for name, entry in listed.items()
        }
    )


def open_registered(name: str, release: str | None, source: Source) -> SAE:
    """Open `release/id` (`name` is the id when `release` is given). A release may also be a repository, `user/repo`."""
    full = name if release is None else f"{release}/{name}"
    known = releases()
    parts = full.split("/")
    if parts[0] in known:
        entry, sae_id = known[parts[0]], "/".join(parts[1:])
        if sae_id not in entry.paths:
            raise InputError(f"The release {entry.name!r} has no SAE {sae_id!r}. {_close(sae_id, list(entry.paths))}")
        if not entry.fits(sae_id):
            raise UnsupportedError(
                f"The SAE {full!r} reads another place than the residual stream between blocks, the only one that "
                "trimtab works on; `trimtab saes --search` lists those of the residual stream."
            )
        return _fetch(entry, sae_id, replace(source, name=full))
    misspelt = difflib.get_close_matches(parts[0], known, n=1, cutoff=0.9)
    if len(parts) >= 2 and all(parts) and not misspelt:
        return _from_repository("/".join(parts[:2]), "/".join(parts[2:]), replace(source, name=full))
    raise InputError(_unknown(full))


def _fetch(entry: Release, sae_id: str, source: Source) -> SAE:
    where = f"{entry.repo}/{entry.paths[sae_id]}"
    try:
        if entry.loader in ("gemma_2", "gemma_3"):
            return read_sae(_download(entry.repo, entry.paths[sae_id]), source)
        return _through_sae_lens(entry.name, sae_id, source)
    except TrimtabError:
        raise
    except Exception as error:  # the hub's client and sae_lens raise many kinds; each means: it could not be had
        raise FileError(f"The SAE {source.name!r} could not be fetched from {where}: {_first_line(error)}") from error


def _through_sae_lens(release: str, sae_id: str, source: Source) -> SAE:
    from sae_lens import SAE as Theirs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, _, _ = Theirs.from_pretrained_with_cfg_and_sparsity(release, sae_id)
    try:
        return convert(theirs.cfg.to_dict(), dict(theirs.state_dict()), source)
    except (InputError, UnsupportedError) as error:
        raise type(error)(f"The SAE {source.name!r} cannot be used: {error}") from None


def _download(repo: str, folder: str) -> Path:
    """The local copy of a folder in a hub repository, with the repository's own `config.json` beside it."""
    from huggingface_hub import snapshot_download

    patterns = [f"{folder}/{pattern}" for pattern in _LAYOUTS] if folder else list(_LAYOUTS)
    return Path(snapshot_download(repo, allow_patterns=[*patterns, "config.json"])) / folder


def _from_repository(repo: str, folder: str, source: Source) -> SAE:
    """A folder of a hub repository that is not in the registry, in any layout that `formats` reads."""
    try:
        path = _download(repo, folder)
    except Exception as error:  # as in _fetch
        raise InputError(
            f"{_unknown(source.name)} As a Hugging Face repository it fails: {_first_line(error)}"
        ) from error
    return read_sae(path, source)


def _unknown(name: str) -> str:
    from trimtab.sae.shipped import list_saes

    names = [*(sae.name for sae in list_saes()), *releases()]
    return (
        f"Unknown SAE {name!r}: it is neither in the package, nor a file or folder, nor in SAELens' registry. "
        f"{_close(name.split('/')[0], names)}"
    )


def _close(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    if near:
        return f"Close matches: {', '.join(near)}."
    return f"Valid: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}."


def _first_line(error: Exception) -> str:
    return (str(error).strip().split("\n")[0] or type(error).__name__).rstrip(".") + "."
