"""A window of contexts -> one shard of residual activations: a unit of `trimtab.scale`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimtab.lm.texts import Context, batches
from trimtab.scale.unit import Do, Part, Tell, Unit
from trimtab.spec import Site

if TYPE_CHECKING:
    import torch

    from trimtab.lm.load import Model

TOKENS_PER_BATCH = 2048
# A token is a sink when its norm exceeds this multiple of the 99.9th percentile of the first shard's norms.
SINK_FACTOR = 1.5


@dataclass(frozen=True, eq=False)
class Shards:
    """How a worker makes shards. The work of a unit is (number, contexts, longest norm at each site or nothing)."""

    model: Model
    sites: tuple[Site, ...]
    autocast: bool
    seed: int

    @contextmanager
    def open(self) -> Iterator[Do]:
        """What a worker holds is this value, with its model."""
        yield self.shard

    def shard(self, unit: Unit, _tell: Tell) -> Part:
        """Residuals at every site without BOS and sinks, bfloat16 [tokens, width], rows shuffled."""
        number, window, limit = unit.work
        acts, read_tokens = self._read(window)
        norms = {site: h.float().norm(dim=-1) for site, h in acts.items()}
        limit = limit or {
            site: SINK_FACTOR * float(n.kthvalue(max(1, round(0.999 * len(n)))).values) for site, n in norms.items()
        }
        kept = {site: acts[site][norms[site] <= limit[site]] for site in acts}
        facts = {"tokens": min(map(len, kept.values())), "read": read_tokens, "norm_limit": dict(limit)}
        return Part({f"{unit.id}.safetensors": _shuffled(kept, self.seed + number)}, facts)

    def _read(self, window: Sequence[Context]) -> tuple[dict[str, torch.Tensor], int]:
        import torch

        from trimtab.lm.residual import read

        model = self.model
        kept: dict[str, list[torch.Tensor]] = {str(site): [] for site in self.sites}
        read_tokens = 0
        with torch.autocast(model.device.type, torch.bfloat16, enabled=self.autocast):
            for _, ids, mask in batches(window, tokens=TOKENS_PER_BATCH):
                keep = mask.bool()
                if model.bos_id is not None:
                    keep &= ids != model.bos_id
                read_tokens += int(mask.sum())
                for site, h in read(model, ids, list(self.sites), attention_mask=mask).items():
                    kept[str(site)].append(h.cpu()[keep].to(torch.bfloat16))
        return {site: torch.cat(parts) for site, parts in kept.items()}, read_tokens


def _shuffled(acts: dict[str, torch.Tensor], seed: int) -> bytes:
    """A safetensors file with the rows of each site in another order."""
    import torch
    from safetensors.torch import save

    generator = torch.Generator().manual_seed(seed)
    return bytes(save({site: h[torch.randperm(len(h), generator=generator)] for site, h in acts.items()}))
