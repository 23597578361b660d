"""Train an SAE on a model's residual stream: texts -> activations -> SAE, through sae_lens' trainer.

    out/
      spec.json            what was asked for; another spec is refused
      activations/         shards (see activations.py); can be deleted afterwards
      checkpoint-*/        the last checkpoint
      sae/                 the result in SAELens' layout, with features.safetensors and card.json

Every stage can be killed and called again with the same spec.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from trimtab.errors import InputError, MismatchError
from trimtab.files import read_json, write_folder, write_json
from trimtab.lm.sites import check_site
from trimtab.lm.texts import iter_texts
from trimtab.sae.activations import Harvest, Progress, harvest, has_bfloat16, stream
from trimtab.scale.run import LOCAL, On, Say
from trimtab.scale.store import local_folder
from trimtab.spec import Site, Spec

if TYPE_CHECKING:
    import torch
    from sae_lens.training.sae_trainer import SAETrainer

    from trimtab.lm.load import Model

Architecture = Literal["batchtopk", "matryoshka", "topk", "jumprelu", "gated", "standard"]
CHECKPOINT_SECONDS = 300.0
_NORM_BATCHES = 16


class TrainSpec(Spec):
    """What to train. Lengths and counts are in tokens; `samples` counts activations, `tokens` distinct ones.

    `k` is the mean number of active features (batchtopk, matryoshka, topk); `sparsity` is the penalty's coefficient
    (jumprelu, gated, standard).
    """

    layer: Annotated[int, Field(ge=-1)]
    width: Annotated[int, Field(ge=2)]
    architecture: Architecture = "batchtopk"
    k: Annotated[int, Field(ge=1)] = 32
    sparsity: Annotated[float, Field(gt=0)] = 1.0
    tokens: Annotated[int, Field(ge=1)] = 1_000_000
    samples: Annotated[int, Field(ge=1)] | None = None
    batch: Annotated[int, Field(ge=2)] = 2048
    lr: Annotated[float, Field(gt=0)] = 7e-4
    context: Annotated[int, Field(ge=2)] = 128
    field: str = "text"
    seed: int = 0
    dead_after: Annotated[int, Field(ge=1)] = 300
    """Steps without firing after which a feature counts as dead."""
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    """How the two weight matrices are stored; biases and thresholds stay float32."""
    autocast: bool | None = None
    """bfloat16 matrix products; by default where the processor has instructions for them."""


def train(
    model: Model,
    texts: list[str],
    spec: TrainSpec,
    out: str | Path,
    *,
    heldout: list[str] | None = None,
    on: On = LOCAL,
    progress: Callable[[Progress], None] = lambda _: None,
    say: Say = lambda _: None,
) -> Path:
    """Train by `spec` on `texts` and return the folder of the finished SAE, `out`/sae.

    `heldout` texts give the numbers in the card (else `texts` are measured, and the card says so).
    Goes on where an earlier call with the same spec stopped. Raises `MismatchError` for another spec in `out`.
    `on` is where activations are collected; the SAE itself is trained here.
    """
    from trimtab.sae.card import write_card

    out = local_folder(out)
    _check(model, [*texts, *(heldout or [])], spec)
    _claim(out, spec, model)
    if (out / "sae" / "card.json").is_file():
        return out / "sae"
    site = Site(layer=spec.layer)
    acts = harvest(
        model, texts, [site], out / "activations", tokens=spec.tokens, context=spec.context, field=spec.field,
        seed=spec.seed, autocast=spec.autocast, on=on, progress=progress, say=say,
    )  # fmt: skip
    fit(acts, site, spec, out, metadata=_metadata(model, site, spec), progress=progress)
    write_card(
        model, out / "sae", acts, site, heldout=heldout or texts, progress=progress,
        about={"trained": read_json(out / "trained.json"), "spec": spec.model_dump(mode="json")},
    )  # fmt: skip
    return out / "sae"


def _check(model: Model, texts: list[str], spec: TrainSpec) -> None:
    """Refuse what would fail hours later, before anything is written."""
    check_site(Site(layer=spec.layer), model.n_layers)
    if spec.architecture in ("batchtopk", "matryoshka", "topk") and spec.k > spec.width:
        raise InputError(f"k = {spec.k} active features cannot exceed the width, {spec.width}.")
    for source in texts:
        next(iter_texts([source], field=spec.field), None)


def _claim(out: Path, spec: TrainSpec, model: Model) -> None:
    wanted = {**spec.model_dump(mode="json"), "model": model.name}
    if (out / "spec.json").exists():
        there = read_json(out / "spec.json")
        changed = [f"{k}: {there.get(k)!r} there, {v!r} now" for k, v in wanted.items() if there.get(k) != v]
        if changed:
            raise MismatchError(f"{out} holds another training run ({'; '.join(changed)}). Choose another folder.")
    else:
        write_json(out / "spec.json", wanted)


def _metadata(model: Model, site: Site, spec: TrainSpec) -> dict[str, Any]:
    return {
        "model_name": model.name,
        "model_class_name": "AutoModelForCausalLM",
        "hook_name": f"blocks.{site.layer}.hook_resid_post",
        "hf_hook_name": str(site),
        "context_size": spec.context,
        "prepend_bos": model.bos_id is not None,
        "exclude_special_tokens": True,
    }


def fit(
    acts: Harvest,
    site: Site,
    spec: TrainSpec,
    out: Path,
    *,
    metadata: dict[str, Any],
    progress: Callable[[Progress], None] = lambda _: None,
) -> Path:
    """Train on a harvest and write `out`/sae (weights, cfg.json in SAELens' layout); resumes from a checkpoint."""
    if (out / "sae" / "cfg.json").is_file():
        return out / "sae"
    trainer = _trainer(acts, site, spec, metadata)
    for checkpoint in _checkpoints(out)[-1:]:
        trainer.sae.load_weights_from_checkpoint(checkpoint)
        trainer.load_trainer_state(checkpoint)
    total = trainer.cfg.total_training_samples
    batches = stream(acts, site, batch=spec.batch, seed=spec.seed, skip=trainer.n_training_samples // spec.batch)
    started = saved = time.monotonic()
    first = trainer.n_training_samples
    while trainer.n_training_samples < total:
        trainer.maybe_reset_sparsity()
        step = trainer.step(next(batches))
        trainer.n_training_steps += 1
        if trainer.n_training_steps % 20 == 0:
            rate = (trainer.n_training_samples - first) / (time.monotonic() - started)
            fvu = step.losses["mse_loss"].item() / float(_variance(step.sae_in))
            note = f"FVU {fvu:.4f}, dead {int(trainer.dead_neurons.sum())}"
            progress(Progress("training", trainer.n_training_samples, total, "samples", rate, note))
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save_checkpoint(trainer, out)
            saved = time.monotonic()
    trained = {
        "distinct_tokens": acts.tokens,
        "samples": trainer.n_training_samples,
        "tokens_per_second_model": round(acts.tokens / max(acts.manifest["seconds"], 1e-9)),
        "samples_per_second_sae": round((trainer.n_training_samples - first) / max(time.monotonic() - started, 1e-9)),
    }
    write_json(out / "trained.json", trained)
    _finish(trainer, out, spec)
    return out / "sae"


def _variance(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(0)).pow(2).sum(-1).mean()


def _trainer(acts: Harvest, site: Site, spec: TrainSpec, metadata: dict[str, Any]) -> SAETrainer[Any, Any]:
    import torch
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(spec.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sae = _untrained(acts.width, spec, device)
    for key, value in metadata.items():
        setattr(sae.cfg.metadata, key, value)
    steps = max(1, (spec.samples or spec.tokens) // spec.batch)
    config = SAETrainerConfig(
        total_training_samples=steps * spec.batch,
        train_batch_size_samples=spec.batch,
        lr=spec.lr,
        lr_end=spec.lr / 10,
        lr_warm_up_steps=min(200, steps // 10),
        lr_decay_steps=steps // 4,
        device=device,
        autocast=has_bfloat16(torch.device(device)) if spec.autocast is None else spec.autocast,
        dead_feature_window=spec.dead_after,
        n_batches_for_norm_estimate=_NORM_BATCHES,
        logger=LoggingConfig(log_to_wandb=False),
    )
    trainer = SAETrainer(cfg=config, sae=sae, data_provider=iter(()))
    for group in trainer.optimizer.param_groups:
        group["fused"] = True  # one pass over the weights instead of about eight
    sample = torch.cat(list(islice(stream(acts, site, batch=spec.batch, seed=spec.seed), _NORM_BATCHES)))
    scale = acts.width**0.5 / float(sample.norm(dim=-1).mean())
    trainer.activation_scaler.scaling_factor = scale
    with torch.no_grad():
        # Residual streams have a large constant part; Adam's steps are far too small to learn it into the bias.
        sae.b_dec.copy_(sample.mean(0).to(device) * scale)
    return trainer


def _untrained(d_in: int, spec: TrainSpec, device: str) -> Any:
    """An untrained sae_lens SAE of the asked architecture."""
    import torch
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAEConfig
    from sae_lens.saes.gated_sae import GatedTrainingSAE, GatedTrainingSAEConfig
    from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
    from sae_lens.saes.matryoshka_batchtopk_sae import (
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
    )
    from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

    from trimtab.sae.sparse import SparseBatchTopK

    base: dict[str, Any] = {
        "d_in": d_in, "d_sae": spec.width, "device": device, "normalize_activations": "expected_average_only_in",
    }  # fmt: skip
    if spec.architecture in ("batchtopk", "matryoshka", "topk"):
        base |= {"k": spec.k, "aux_loss_coefficient": 1 / 32}
    if spec.architecture == "batchtopk":
        sae = SparseBatchTopK(BatchTopKTrainingSAEConfig(**base, decoder_init_norm=1.0))
        with torch.no_grad():
            sae.W_enc.mul_(0.3)  # k random unit directions at full gain would overshoot the input
        return sae
    if spec.architecture == "matryoshka":
        widths = [w for w in (spec.width // 16, spec.width // 4, spec.width) if w > 0]
        return MatryoshkaBatchTopKTrainingSAE(MatryoshkaBatchTopKTrainingSAEConfig(**base, matryoshka_widths=widths))
    if spec.architecture == "topk":
        return TopKTrainingSAE(TopKTrainingSAEConfig(**base))
    if spec.architecture == "jumprelu":
        return JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(**base, l0_coefficient=spec.sparsity))
    if spec.architecture == "gated":
        return GatedTrainingSAE(GatedTrainingSAEConfig(**base, l1_coefficient=spec.sparsity))
    return StandardTrainingSAE(StandardTrainingSAEConfig(**base, l1_coefficient=spec.sparsity))


def _checkpoints(out: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(out.glob("checkpoint-*"))


def _save_checkpoint(trainer: SAETrainer[Any, Any], out: Path) -> None:
    """Write the trainer's state to a new folder, then drop older ones; a kill at any moment leaves a whole one."""
    older = _checkpoints(out)
    with write_folder(out / f"checkpoint-{trainer.n_training_samples:012d}") as part:
        trainer.save_checkpoint(part.name, base_path=part.parent)
    for folder in older:
        shutil.rmtree(folder)


def _finish(trainer: SAETrainer[Any, Any], out: Path, spec: TrainSpec) -> None:
    scale = trainer.activation_scaler.scaling_factor
    if scale is not None:
        trainer.sae.fold_activation_norm_scaling_factor(scale)
        trainer.activation_scaler.scaling_factor = None
    trainer.set_final_sae_metadata()
    with write_folder(out / "sae") as part:
        weights, _ = trainer.sae.save_inference_model(part)
        if spec.save_dtype == "bfloat16":
            _halve(weights)
    for folder in _checkpoints(out):
        shutil.rmtree(folder)


def _halve(weights: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    state = load_file(weights)
    for name in ("W_enc", "W_dec"):
        state[name] = state[name].to(torch.bfloat16)
    save_file(state, weights)
