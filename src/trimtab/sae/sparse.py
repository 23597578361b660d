"""BatchTopK training without dense work for features that did not fire.

sae_lens' trainer calls `training_forward_pass` of the SAE that it is given. The subclass here returns the same loss
and the same gradients as sae_lens' own BatchTopK (tested), but decodes and differentiates only the k * batch
activations that were kept: at 16,384 features and k = 38 that is 0.2 % of the matrix. What stays dense is one
matrix product (the pre-activations) and one comparison over its result.

BatchTopK: Bussmann et al. 2024 (arXiv 2412.06410). Auxiliary loss of dead features: Gao et al. 2024 (2406.04093).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch.nn.functional import embedding_bag, linear

# Candidates are all pre-activations above this share of the last batch's smallest kept one; among them the exact
# top k * batch are taken. If too few pass, the whole matrix is searched, so the share changes the speed only.
_CANDIDATE_SHARE = 0.75
_GATHER_ROWS = 1024


class _SparseAutoencode(torch.autograd.Function):
    """sum of relu(pre) * decoder row over the kept (row, feature) entries; gradients touch those entries only."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,  # [batch, d] input less b_dec
        values: torch.Tensor,  # [n] kept activations, in row order
        rows: torch.Tensor,  # [n]
        features: torch.Tensor,  # [n]
        encoder: torch.Tensor,  # [d, features], stored feature by feature
        b_enc: torch.Tensor,
        W_dec: torch.Tensor,  # [features, d]
    ) -> torch.Tensor:
        ctx.save_for_backward(x, values, rows, features, encoder, W_dec)
        return _bags(rows, x.shape[0], features, values, W_dec)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, values, rows, features, encoder, W_dec = ctx.saved_tensors
        grad = grads[0].contiguous()
        slope = torch.empty_like(values)  # d loss / d value
        for i in range(0, len(values), _GATHER_ROWS):
            part = slice(i, i + _GATHER_ROWS)
            slope[part] = (grad[rows[part]] * W_dec[features[part]]).sum(-1)
        slope *= values > 0
        order = torch.argsort(features, stable=True)
        by_feature, by_row = features[order], rows[order]
        n = W_dec.shape[0]
        grad_dec = _bags(by_feature, n, by_row, values[order], grad)
        grad_enc = _bags(by_feature, n, by_row, slope[order], x)
        grad_b_enc = torch.zeros(n, dtype=slope.dtype, device=slope.device).index_add_(0, features, slope)
        # x is the input less b_dec, so only the sum of its gradient over the batch is ever needed
        grad_x = (grad_b_enc @ encoder.T).expand(x.shape[0], -1) / x.shape[0]
        return grad_x, None, None, None, grad_enc.T, grad_b_enc, grad_dec


def _bags(
    groups: torch.Tensor, n: int, picks: torch.Tensor, weights: torch.Tensor, table: torch.Tensor
) -> torch.Tensor:
    """out[g] = sum of weights * table[picks] over the entries of group g; `groups` is sorted. [n, d]."""
    counts = torch.bincount(groups, minlength=n)
    starts = counts.cumsum(0) - counts
    return embedding_bag(picks, table, starts, mode="sum", per_sample_weights=weights)


_autoencode: Callable[..., torch.Tensor] = _SparseAutoencode.apply


class SparseBatchTopK(BatchTopKTrainingSAE):
    """sae_lens' BatchTopK with a sparse forward and backward pass. Always ranks by activation times decoder norm."""

    topk_threshold: torch.Tensor

    def __init__(self, cfg: BatchTopKTrainingSAEConfig):
        plain = cfg.normalize_activations in ("none", "expected_average_only_in")
        if not (plain and cfg.rescale_acts_by_decoder_norm):
            raise ValueError("SparseBatchTopK needs rescale_acts_by_decoder_norm and no input-dependent normalisation")
        super().__init__(cfg)
        self._cut = 0.0
        # stored feature by feature, which is how the gradient arrives and how the product is fastest
        self.W_enc: torch.nn.Parameter = torch.nn.Parameter(self.W_enc.data.T.contiguous().T)

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Loss and metrics of one batch; `feature_acts` in the output is a sparse tensor [batch, features]."""
        x = step_input.sae_in
        x_in = x - self.b_dec
        values, rows, features = self._keep(x_in)
        with torch.autocast(x.device.type, enabled=False):
            kept = values, rows, features
            out = _autoencode(x_in, *kept, self.W_enc, self.b_enc, self.W_dec) + self.b_dec
            mse = (out - x).pow(2).sum(-1).mean()
            aux = self._revive(x_in, (x - out).detach(), step_input.dead_neuron_mask)
        fired = values > 0
        acts = torch.sparse_coo_tensor(
            torch.stack([rows[fired], features[fired]]),
            values[fired].detach(),
            (x.shape[0], self.cfg.d_sae),
            check_invariants=False,
        )
        return TrainStepOutput(
            sae_in=x,
            sae_out=out,
            feature_acts=acts,
            hidden_pre=values,
            loss=mse + aux,
            losses={"mse_loss": mse, "auxiliary_reconstruction_loss": aux},
            metrics={"topk_threshold": self.topk_threshold},
        )

    @torch.no_grad()
    def _keep(self, x_in: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The k * batch largest rescaled activations: values (not rescaled), rows, features; in row order."""
        norm = self.W_dec.norm(dim=-1)
        pre = linear(x_in, self.W_enc.T * norm[:, None], self.b_enc * norm).view(-1)
        count = int(self.cfg.k * x_in.shape[0])
        candidates = (pre > self._cut).nonzero().squeeze(1) if self._cut > 0 else None
        if candidates is None or len(candidates) < count:
            candidates = torch.arange(len(pre), device=pre.device)
        kept = pre[candidates].float()
        _, best = kept.topk(count)
        best = best.sort().values
        kept, index = kept[best], candidates[best]
        smallest = kept[kept > 0].min() if bool((kept > 0).any()) else kept.new_zeros(())
        self._cut = _CANDIDATE_SHARE * float(smallest)
        rate = self.cfg.topk_threshold_lr
        self.topk_threshold = (1 - rate) * self.topk_threshold + rate * smallest.to(self.topk_threshold.dtype)
        rows, features = index // self.cfg.d_sae, index % self.cfg.d_sae
        return kept.relu() / norm[features], rows, features

    def _revive(self, x_in: torch.Tensor, error: torch.Tensor, dead: torch.Tensor | None) -> torch.Tensor:
        """Dead features learn to reconstruct what the live ones missed (the top d/2 dead ones of each row)."""
        count = 0 if dead is None else int(dead.sum())
        if dead is None or count == 0:
            return error.new_zeros(())
        half = x_in.shape[-1] // 2
        W_dec = self.W_dec[dead]
        pre = linear(x_in, self.W_enc[:, dead].T, self.b_enc[dead])
        if count > half:
            best = (pre.detach() * W_dec.detach().norm(dim=-1)).topk(half, dim=-1).indices
            pre = torch.zeros_like(pre).scatter(-1, best, pre.gather(-1, best))
        recon = pre @ W_dec
        loss = (recon - error).pow(2).sum(-1).mean()
        return self.cfg.aux_loss_coefficient * min(count / half, 1.0) * loss

    def process_state_dict_for_saving(self, state_dict: dict[str, Any]) -> None:
        """Files hold contiguous tensors in sae_lens' layout."""
        super().process_state_dict_for_saving(state_dict)
        for name, tensor in state_dict.items():
            state_dict[name] = tensor.contiguous()
