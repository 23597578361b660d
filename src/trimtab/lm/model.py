"""An open language model: one value with everything the other packages ask of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from trimtab.errors import InputError
from trimtab.lm import sites

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from trimtab.lm.residual import Receipt, SiteEdit


class Steering(Protocol):
    """What `Model.edited` accepts: a recipe, or anything else that compiles to edits."""

    def compile(self, model: Model) -> list[SiteEdit]:
        """Edits for every row of the batch."""
        ...

    @classmethod
    def compile_rows(cls, recipes: Sequence[Any], model: Model) -> list[SiteEdit]:
        """Edits for a batch in which row i has `recipes[i]`, or none where that is None."""
        ...


@dataclass(frozen=True, eq=False)
class Model:
    """A language model with its tokenizer; made by `open_model`. Nothing in trimtab changes either of them.

    `hf` is the transformers model (in eval mode, without gradients), `blocks` its residual blocks, `fingerprint` a
    digest of configuration and sampled weights that does not depend on dtype or device, `context` the longest context
    in tokens (None: no stated limit), `adds_bos` whether its tokenizer puts BOS before a text.
    """

    hf: Any
    tokenizer: Any
    name: str
    fingerprint: str
    blocks: tuple[nn.Module, ...]
    d_model: int
    context: int | None
    bos_id: int | None
    adds_bos: bool

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """Where input ids belong."""
        return self.hf.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of the residual stream."""
        return self.hf.dtype

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Token ids that end a text."""
        ids = getattr(self.hf.generation_config, "eos_token_id", None)
        ids = self.tokenizer.eos_token_id if ids is None else ids
        return () if ids is None else (ids,) if isinstance(ids, int) else tuple(ids)

    @property
    def pad_id(self) -> int:
        """The id that `pad` fills with; it is always masked, so any valid id would do."""
        for found in (self.tokenizer.pad_token_id, *self.eos_ids, self.bos_id):
            if found is not None:
                return int(found)
        return 0

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, with BOS first where the tokenizer adds it and never with an end token."""
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return [self.bos_id, *ids] if self.adds_bos and self.bos_id is not None else list(ids)

    def encode_prompt(self, text: str, room: int = 0) -> list[int]:
        """`encode`, refusing with `InputError` a prompt that is empty or that leaves no `room` for new tokens."""
        if not isinstance(text, str):
            raise InputError(f"A prompt must be text, not {type(text).__name__}.")
        if not text:
            raise InputError("The prompt is empty; give at least one character.")
        ids = self.encode(text)
        if self.context is not None and len(ids) + room > self.context:
            wanted = f" and {room} new tokens were asked for" if room else ""
            raise InputError(
                f"The prompt is too long: it has {len(ids)} tokens{wanted}, but the context of {self.name} is "
                f"{self.context} tokens."
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, without BOS, end and other control tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def pad(self, rows: Sequence[Sequence[int]], side: Literal["left", "right"] = "left") -> tuple[Tensor, Tensor]:
        """`rows` as `(input_ids, attention_mask)`, both LongTensor [rows, longest row] on the model's device."""
        import torch

        longest = max((len(row) for row in rows), default=0)
        if longest == 0:
            raise InputError("There is nothing to pad: no row has any token.")
        ids = torch.full((len(rows), longest), self.pad_id)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            span = slice(longest - len(row), longest) if side == "left" else slice(0, len(row))
            ids[i, span] = torch.tensor(list(row), dtype=torch.long)
            mask[i, span] = 1
        return ids.to(self.device), mask.to(self.device)

    def edited(
        self, recipe: Steering | Sequence[Steering | None] | None, record: bool = True
    ) -> AbstractContextManager[Receipt]:
        """Steer every forward pass made inside this context, those of `model.hf.generate(...)` included.

        One recipe steers every row. A list has one recipe per row of the batch, None leaving a row alone; with beams
        or several sequences per prompt, it still has one per prompt. Yields the `Receipt`; `record=False` keeps none.
        Not for assisted, speculative or prompt-lookup decoding, which raise `UnsupportedError` as soon as a token is
        rejected, or static caches, which raise it at once.
        """
        from trimtab.lm.residual import edit

        if recipe is None:
            return edit(self, [], record=record)
        if not isinstance(recipe, Sequence):
            return edit(self, recipe.compile(self), record=record)
        first = next((one for one in recipe if one is not None), None)
        compiled = [] if first is None else type(first).compile_rows(recipe, self)
        return edit(self, compiled, batch=len(recipe), record=record)


def wrap(hf: Any, tokenizer: Any, name: str, *, blocks: str | None = None) -> Model:
    """A `Model` from a transformers model and tokenizer that are already in memory."""
    hf.eval().requires_grad_(False)
    bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else getattr(hf.config, "bos_token_id", None)
    bos_id = int(bos) if isinstance(bos, int) else None
    return Model(
        hf=hf,
        tokenizer=tokenizer,
        name=name,
        fingerprint=fingerprint(hf),
        blocks=sites.layers(hf, blocks),
        d_model=sites.width(hf),
        context=sites.context(hf),
        bos_id=bos_id,
        adds_bos=bos_id is not None and tokenizer("a")["input_ids"][:1] == [bos_id],
    )


def fingerprint(hf: Any) -> str:
    """A digest (16 hex digits) of a model's shape and the signs of up to 256 numbers from each of its parameters.

    Signs survive every change of dtype, so float32, bfloat16 and float16 copies of a model agree, while another
    training run or a fine-tuned model does not.
    """
    import torch

    config = sites.text_config(hf)
    fields = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    digest = hashlib.sha256(json.dumps([str(getattr(config, field, None)) for field in fields]).encode())
    for name, parameter in sorted(hf.named_parameters()):
        flat = parameter.detach().reshape(-1)
        spread = torch.linspace(0, flat.numel() - 1, min(256, flat.numel()), dtype=torch.float64).long()
        signs = torch.signbit(flat[spread.to(flat.device)]).cpu()
        digest.update(f"{name} {tuple(parameter.shape)}".encode() + bytes(signs.tolist()))
    return digest.hexdigest()[:16]
