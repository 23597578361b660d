"""llama.cpp as a contestant: one batch of sequences, a control vector, temperature 1 over the whole vocabulary.

Called through the C interface of the library inside the PyPI package `xllamacpp` (not a dependency of trimtab:
`pip install xllamacpp`), whose Python classes have no control vectors. All sequences advance together, one
`llama_decode` for each step, which is what its server does with as many slots; there is no HTTP in between.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Sequence
from pathlib import Path

_ROOM = 1024  # more bytes than any of the parameter structs has; they are passed in memory, so more does no harm
_TOKENS = 2048


class _Params(c.Structure):
    _fields_ = [("words", c.c_uint32 * (_ROOM // 4))]


class _Batch(c.Structure):
    _fields_ = [
        ("n_tokens", c.c_int32),
        ("token", c.POINTER(c.c_int32)),
        ("embd", c.POINTER(c.c_float)),
        ("pos", c.POINTER(c.c_int32)),
        ("n_seq_id", c.POINTER(c.c_int32)),
        ("seq_id", c.POINTER(c.POINTER(c.c_int32))),
        ("logits", c.POINTER(c.c_int8)),
    ]


def library() -> c.CDLL:
    """The shared library, with the types of what is called here."""
    import xllamacpp

    (path,) = Path(xllamacpp.__file__).parent.glob("*.so")
    lib = c.CDLL(str(path))
    pointer, number = c.c_void_p, c.c_int32
    signatures = {
        "llama_model_default_params": (_Params, []),
        "llama_context_default_params": (_Params, []),
        "llama_model_load_from_file": (pointer, [c.c_char_p, _Params]),
        "llama_init_from_model": (pointer, [pointer, _Params]),
        "llama_set_n_threads": (None, [pointer, number, number]),
        "llama_set_adapter_cvec": (number, [pointer, c.POINTER(c.c_float), c.c_size_t, number, number, number]),
        "llama_decode": (number, [pointer, _Batch]),
        "llama_get_memory": (pointer, [pointer]),
        "llama_memory_clear": (None, [pointer, c.c_bool]),
        "llama_get_logits_ith": (c.POINTER(c.c_float), [pointer, number]),
        "llama_sampler_chain_init": (pointer, [c.c_bool]),
        "llama_sampler_init_dist": (pointer, [c.c_uint32]),
        "llama_sampler_chain_add": (None, [pointer, pointer]),
        "llama_sampler_sample": (number, [pointer, pointer, number]),
        "llama_free": (None, [pointer]),
        "llama_sampler_free": (None, [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class Llama:
    """A GGUF model with room for `rows` sequences of `length` tokens."""

    def __init__(self, gguf: Path, rows: int, length: int, threads: int) -> None:
        self.lib = library()
        self.quiet = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)(lambda *_: None)
        self.lib.llama_log_set(self.quiet, None)
        self.model = self.lib.llama_model_load_from_file(str(gguf).encode(), self.lib.llama_model_default_params())
        params = self.lib.llama_context_default_params()
        params.words[0] = rows * (-(-length // 256) * 256)  # n_ctx
        params.words[1], params.words[2] = _TOKENS, 512  # n_batch and n_ubatch, as its server has them
        params.words[3] = rows  # n_seq_max
        self.context = self.lib.llama_init_from_model(self.model, params)
        if not self.model or not self.context:
            raise SystemExit(f"llama.cpp cannot open {gguf}")
        self.lib.llama_set_n_threads(self.context, threads, threads)
        self.samplers = []
        for row in range(rows):
            chain = self.lib.llama_sampler_chain_init(True)
            self.lib.llama_sampler_chain_add(chain, self.lib.llama_sampler_init_dist(row))
            self.samplers.append(chain)

    def steer(self, vector: Sequence[float], layer: int, n_layers: int) -> None:
        """Add a vector to the output of one block; its file format has no room for block 0."""
        width = len(vector)
        data = (c.c_float * (width * (n_layers - 1)))()
        data[(layer - 1) * width : layer * width] = list(vector)
        if self.lib.llama_set_adapter_cvec(self.context, data, len(data), width, layer, layer):
            raise SystemExit("llama.cpp refuses the control vector")

    def write(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
        """`tokens` ids after each prompt, without stopping at end tokens."""
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        out: list[list[int]] = [[] for _ in prompts]
        for group in _groups(prompts):
            items, last = [], {}
            for row in group:
                items += [(token, place, row) for place, token in enumerate(prompts[row])]
                last[len(items) - 1] = row
            self._decode(items, set(last))
            for place, row in last.items():
                out[row].append(self._draw(row, place))
        for step in range(tokens - 1):
            self._decode([(out[row][-1], len(prompt) + step, row) for row, prompt in enumerate(prompts)])
            for row in range(len(prompts)):
                out[row].append(self._draw(row, row))
        return out

    def logits(self, prompt: Sequence[int], words: int) -> list[float]:
        """Scores of the token after a prompt."""
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        self._decode([(token, place, 0) for place, token in enumerate(prompt)], {len(prompt) - 1})
        return list(self.lib.llama_get_logits_ith(self.context, len(prompt) - 1)[:words])

    def _draw(self, row: int, place: int) -> int:
        return int(self.lib.llama_sampler_sample(self.samplers[row], self.context, place))

    def _decode(self, items: list[tuple[int, int, int]], wanted: set[int] | None = None) -> None:
        """(token, position, row) of each item; logits at the places `wanted` (None: everywhere)."""
        n = len(items)
        rows = [(c.c_int32 * 1)(row) for *_, row in items]
        flags = [int(wanted is None or i in wanted) for i in range(n)]
        batch = _Batch(
            n,
            (c.c_int32 * n)(*(token for token, *_ in items)),
            None,
            (c.c_int32 * n)(*(place for _, place, _ in items)),
            (c.c_int32 * n)(*([1] * n)),
            (c.POINTER(c.c_int32) * n)(*(c.cast(row, c.POINTER(c.c_int32)) for row in rows)),
            (c.c_int8 * n)(*flags),
        )
        if self.lib.llama_decode(self.context, batch):
            raise SystemExit("llama_decode failed")

    def close(self) -> None:
        """Give the context's memory back."""
        self.lib.llama_free(self.context)


def _groups(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Rows whose prompts fit in one batch together."""
    groups: list[list[int]] = [[]]
    size = 0
    for row, prompt in enumerate(prompts):
        if groups[-1] and size + len(prompt) > _TOKENS:
            groups.append([])
            size = 0
        groups[-1].append(row)
        size += len(prompt)
    return groups
