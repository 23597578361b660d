"""Neuronpedia over the network: one feature, label search, and bulk exports. Everything it returns is plain data.

The addresses can be changed, so tests and mirrors work the same way. A key is only needed for what the site limits.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.errors import FileError, InputError
from trimtab.files import write_file
from trimtab.index.neuronpedia import parse
from trimtab.index.records import Feature

_BATCH = re.compile(r"batch-\d+\.jsonl(\.gz)?")
KINDS = ("features", "activations", "explanations")


@dataclass(frozen=True)
class Neuronpedia:
    """Where Neuronpedia is: its site, and the public bucket of its exports."""

    site: str = "https://www.neuronpedia.org"
    exports: str = "https://neuronpedia-datasets.s3.us-east-1.amazonaws.com"
    key: str | None = None
    timeout: float = 60.0

    def feature(self, model_id: str, source_id: str, index: int) -> Feature:
        """One feature with its activations and labels."""
        path = "/".join(urllib.parse.quote(str(part), safe="") for part in (model_id, source_id, index))
        return parse(self._json(f"{self.site}/api/feature/{path}"))

    def search(self, model_id: str, source_ids: list[str], words: str) -> list[dict[str, Any]]:
        """Up to 20 labels near `words` in meaning: index, layer, description, cosine_similarity."""
        if len(words) < 3:
            raise InputError("Neuronpedia searches for at least three characters.")
        body = {"modelId": model_id, "layers": source_ids, "query": words, "offset": 0}
        return list(self._json(f"{self.site}/api/explanation/search", body)["results"])

    def download(
        self, model_id: str, source_id: str, folder: Path, *, say: Callable[[str], None] = lambda _: None
    ) -> Path:
        """Copy an export into `folder`, one file at a time; files that are there already are not fetched again."""
        keys = [key for kind in KINDS for key in self._keys(f"v1/{model_id}/{source_id}/{kind}/")]
        if not keys:
            raise FileError(f"{self.exports} has no export of {model_id}/{source_id}.")
        for key in keys:
            kind, name = key.split("/")[-2:]
            if kind not in KINDS or not _BATCH.fullmatch(name):
                raise FileError(f"{self.exports} lists a file that an export does not have: {key!r}.")
            target = folder / kind / name
            if not target.is_file():
                say(f"fetching {key}")
                with write_file(target) as part:
                    part.write_bytes(self._get(f"{self.exports}/{urllib.parse.quote(key)}"))
        return folder

    def _keys(self, prefix: str) -> Iterator[str]:
        """The names of all files under `prefix`, over as many pages as the listing has."""
        token = ""
        while True:
            query = {"list-type": "2", "prefix": prefix} | ({"continuation-token": token} if token else {})
            page = self._get(f"{self.exports}/?{urllib.parse.urlencode(query)}")
            try:
                root = ET.fromstring(page)
            except ET.ParseError as error:
                raise FileError(f"{self.exports} does not answer with a listing: {error}.") from None
            space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
            yield from (str(one.text) for one in root.iter(f"{space}Key"))
            token = root.findtext(f"{space}NextContinuationToken") or ""
            if not token:
                return

    def _json(self, url: str, body: dict[str, Any] | None = None) -> Any:
        try:
            return json.loads(self._get(url, None if body is None else json.dumps(body).encode()))
        except ValueError:
            raise FileError(f"{url} does not answer with JSON.") from None

    def _get(self, url: str, body: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self.key and url.startswith(f"{self.site}/"):
            headers["X-Api-Key"] = self.key
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=self.timeout) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            raise FileError(f"{url} answers HTTP {error.code} {error.reason}.") from None
        except OSError as error:
            raise FileError(f"{url} cannot be reached: {getattr(error, 'reason', error)}.") from None
