"""Reading and editing the residual stream. The only file that places hooks.

Every edit works through two hooks: a clock on the base decoder, which tells for each forward pass what every
token's absolute position is and whether it belongs to the prompt, and one hook per site, which adds the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trimtab.errors import InputError, UnsupportedError
from trimtab.lm.clock import Clock, Positions, describe, selected
from trimtab.lm.receipt import Receipt
from trimtab.lm.sites import check_site
from trimtab.spec import Scope, Site

if TYPE_CHECKING:
    from torch import nn

    from trimtab.lm.load import Model

__all__ = ["NotFiniteError", "Positions", "Receipt", "SiteEdit", "edit", "read"]


@dataclass(frozen=True, eq=False)
class SiteEdit:
    """One compiled edit.

    `rows`: LongTensor [n] of logical batch rows (no row twice), or None for all of them. `delta(h)` is a pure function
    from the residual h [n, seq, d] (float32) to the change to add, same shape; row i of h is batch row `rows[i]`.
    """

    site: Site
    scope: Scope
    rows: Tensor | None
    delta: Callable[[Tensor], Tensor]


class NotFiniteError(InputError):
    """An edit made numbers that are NaN or infinite. `rows` of the forward pass: where."""

    def __init__(self, message: str, rows: tuple[int, ...]) -> None:
        super().__init__(message)
        self.rows = rows


class _Stop(Exception):
    """Ends a forward pass once everything asked for has been read."""


@torch.no_grad()
def read(
    model: Model, input_ids: Tensor, sites: Sequence[Site | int | str], attention_mask: Tensor | None = None
) -> dict[Site, Tensor]:
    """The residual stream [rows, seq, d] at each site, in the model's dtype, without running the blocks after the last.

    `input_ids` and `attention_mask` are [rows, seq], padded on either side; what stands at padding is meaningless.
    Inside an `edit` the edited stream is read. Raises `InputError` for a site that the model does not have.
    """
    wanted = sorted({check_site(site, model.n_layers) for site in sites}, key=lambda site: site.layer)
    if not wanted:
        return {}
    found: dict[Site, Tensor] = {}

    def reader(site: Site) -> Callable[[Tensor], None]:
        def keep(h: Tensor) -> None:
            found[site] = h.detach()
            if site == wanted[-1]:
                raise _Stop

        return keep

    input_ids = input_ids.to(model.device)
    inputs: dict[str, Any] = {"input_ids": input_ids, "use_cache": False}
    if attention_mask is not None:
        inputs["attention_mask"] = attention_mask.to(model.device)
        inputs["position_ids"] = (inputs["attention_mask"].long().cumsum(-1) - 1).clamp(min=0)
    handles: list[Any] = []
    try:
        for site in wanted:
            handles.append(_hook(model, site, reader(site), first=False))
        model.hf.base_model(**inputs)
    except _Stop:
        return found
    finally:
        for handle in handles:
            handle.remove()
    missing = ", ".join(str(site) for site in wanted if site not in found)
    raise UnsupportedError(f"The forward pass never reached {missing}; the blocks of {model.name} are named wrongly.")


@contextmanager
def edit(
    model: Model,
    edits: Sequence[SiteEdit],
    *,
    batch: int | None = None,
    positions: Callable[[], Positions] | None = None,
    record: bool = True,
    must_act: bool = True,
    fan_out: int | None = None,
) -> Iterator[Receipt]:
    """Edit the residual stream in every forward pass made inside the context; yields the `Receipt`.

    `batch` is the number of logical rows: when a forward pass carries a multiple of it (beams, several sequences
    per prompt), each row's edits are repeated in place. `positions` replaces the clock: it is called once per forward
    pass and says where every token stands. Contexts may be nested; the inner one's changes are made first.
    `must_act=False` is for callers that see only a part of a sequence and check the scopes themselves.
    `fan_out`: the forward pass is given one row, which becomes this many at the first site that is edited; so rows that
    differ in their edits alone share the blocks before it. Needs `positions`, and a pass without cache and padding.

    Raises `InputError` for an unknown site, a row out of range, a change of the wrong shape or that is not finite,
    and, when the context ends, for an edit whose scope selected no position of any forward pass; `UnsupportedError`
    for forward passes whose positions cannot be known (see `trimtab.lm.clock`).
    """
    by_site: dict[Site, list[_Edit]] = {}
    for one in edits:
        by_site.setdefault(check_site(one.site, model.n_layers), []).append(_Edit(one))
    receipt = Receipt(record)
    clock = Clock(model.hf, model.bos_id, positions)
    handles: list[Any] = []
    try:
        if by_site:
            clock.attach(handles)
        for site, here in by_site.items():
            handles.append(_hook(model, site, _editor(model, site, here, batch, clock, receipt, fan_out), first=True))
        yield receipt
    finally:
        for handle in reversed(handles):
            handle.remove()
    for here in by_site.values() if must_act else ():
        for used in here:
            used.check_used()


@dataclass
class _Edit:
    """A `SiteEdit` with the two facts that its context has to remember."""

    edit: SiteEdit
    reached: bool = False
    used: bool = False

    def check_used(self) -> None:
        if self.reached and not self.used:
            raise InputError(
                f"The edit at {self.edit.site} changed nothing: its scope ({describe(self.edit.scope)}) selected no "
                "position of any forward pass."
            )


def _hook(model: Model, site: Site, use: Callable[[Tensor], Tensor | None], *, first: bool) -> Any:
    """Call `use` with the stream at `site` in every forward pass; what it returns, if anything, replaces the stream.

    `first` puts the hook before those already there, so that transformers' own recorders see the edited stream.
    """
    if site.layer >= 0:

        def after(_module: nn.Module, _args: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                new = use(output[0])
                return None if new is None else (new, *output[1:])
            return use(output)

        return model.blocks[site.layer].register_forward_hook(after, prepend=first)

    def before(_module: nn.Module, args: Any, kwargs: Any) -> Any:
        new = use(args[0] if args else kwargs["hidden_states"])
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    return model.blocks[0].register_forward_pre_hook(before, prepend=first, with_kwargs=True)


def _editor(
    model: Model,
    site: Site,
    edits: list[_Edit],
    batch: int | None,
    clock: Clock,
    receipt: Receipt,
    fan_out: int | None,
) -> Callable[[Tensor], Tensor]:
    def apply(h: Tensor) -> Tensor:
        if fan_out is not None and len(h) == 1:
            h = h.expand(fan_out, -1, -1)
        now = clock.now(h, site)
        beams = _beams(h.shape[0], batch)
        residual = h.float()
        change = torch.zeros_like(residual)
        touched = torch.zeros(h.shape[:2], dtype=torch.bool, device=h.device)
        for one in edits:
            mask = selected(one.edit.scope, now)
            for rows in _rows(one.edit, h.shape[0], batch, beams, h.device):
                part = residual if rows is None else residual[rows]
                delta = _checked(one.edit, part, model.d_model)
                here = mask if rows is None else mask[rows]
                one.used = one.used or bool(here.any())
                delta = torch.where(here[..., None], delta, 0.0)
                if rows is None:
                    change, touched = change + delta, touched | here
                else:
                    change = change.index_add(0, rows, delta)
                    touched = touched.index_put((rows,), touched[rows] | here)
            one.reached = True
        new = (residual + change).to(h.dtype)
        _check_finite(new, change, touched, site, beams)
        receipt.add(site, now.absolute, touched, change, residual)
        return torch.where(touched[..., None], new, h)

    return apply


def _beams(rows: int, batch: int | None) -> int:
    if batch is None:
        return 1
    if rows % batch:
        raise InputError(
            f"The forward pass has {rows} rows, which is not a multiple of the {batch} rows of the recipe."
        )
    return rows // batch


def _rows(one: SiteEdit, rows: int, batch: int | None, beams: int, device: torch.device) -> list[Tensor | None]:
    """Rows of the forward pass for each call of `delta`: one call per beam, so that it always sees its own n rows."""
    if one.rows is None and beams == 1:
        return [None]
    logical = rows // beams
    mine = torch.arange(logical, device=device) if one.rows is None else one.rows.to(device)
    if one.rows is not None and len(mine) and not 0 <= int(mine.min()) <= int(mine.max()) < logical:
        raise InputError(
            f"The edit at {one.site} is for row {int(mine.max())}, but the forward pass has rows 0 to {logical - 1}."
        )
    return [mine * beams + beam for beam in range(beams)]


def _checked(one: SiteEdit, h: Tensor, width: int) -> Tensor:
    delta = one.delta(h)
    if delta.shape != h.shape:
        raise InputError(
            f"The edit at {one.site} has the wrong width: its change has shape {tuple(delta.shape)} where the residual "
            f"has {tuple(h.shape)} (rows, tokens, width {width})."
        )
    return delta.float()


def _check_finite(new: Tensor, change: Tensor, touched: Tensor, site: Site, beams: int) -> None:
    bad = touched & ~torch.isfinite(new).all(-1)
    if not bool(bad.any()):
        return
    rows = tuple(bad.any(1).nonzero()[:, 0].tolist())
    row = rows[0]
    if not bool(torch.isfinite(change[row]).all()):
        why = "the change is NaN or infinite"
    else:
        why = f"the sum of residual and change is NaN or infinite in {str(new.dtype).removeprefix('torch.')}"
    raise NotFiniteError(f"The edit at {site}, row {row // beams}: {why}.", rows)
