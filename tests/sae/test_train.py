from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trimtab.errors import FileError, InputError, MismatchError
from trimtab.lm.load import Model
from trimtab.lm.texts import Context
from trimtab.sae import train as module
from trimtab.sae.activations import Progress
from trimtab.sae.card import decoder_max_cosine, feature_statistics, spliced_loss
from trimtab.sae.load import open_sae
from trimtab.sae.sae import SAE
from trimtab.sae.train import TrainSpec, train
from trimtab.spec import Site

SPEC = TrainSpec(layer=1, width=48, k=4, tokens=2000, samples=4096, batch=128, context=32, autocast=False, dead_after=5)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("texts") / "corpus.jsonl"
    texts = [f"The {i}th of {i * 7 % 23} boats {'slowly ' * (i % 4)}crossed the wide bay at dusk." for i in range(60)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


@pytest.mark.parametrize("dead", [0, 3, 30])
def test_sparse_batchtopk_has_sae_lens_loss_and_gradients(dead: int) -> None:
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    from trimtab.sae.sparse import SparseBatchTopK

    torch.manual_seed(dead)
    config = {"d_in": 16, "d_sae": 128, "k": 5, "aux_loss_coefficient": 0.5, "decoder_init_norm": 1.0}
    theirs, ours = (
        BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**config)),
        SparseBatchTopK(BatchTopKTrainingSAEConfig(**config)),
    )
    with torch.no_grad():
        theirs.W_dec *= torch.rand(128, 1) + 0.5
        theirs.b_enc += 0.1 * torch.randn(128)
        theirs.b_dec += 0.1 * torch.randn(16)
    ours.load_state_dict(theirs.state_dict())
    for _ in range(2):  # the second step takes the fast path with candidates
        x = 3 * torch.randn(64, 16)
        outputs: list[Any] = []
        for sae in (theirs, ours):
            sae.zero_grad()
            step = TrainStepInput(
                sae_in=x,
                coefficients={},
                dead_neuron_mask=torch.arange(128) < dead,
                n_training_steps=0,
                is_logging_step=False,
            )
            outputs.append(sae.training_forward_pass(step))
            outputs[-1].loss.backward()
        torch.testing.assert_close(outputs[1].loss, outputs[0].loss)
        rescaled = outputs[1].feature_acts.to_dense() * ours.W_dec.norm(dim=-1)
        torch.testing.assert_close(rescaled, outputs[0].feature_acts)
        for name, parameter in theirs.named_parameters():
            torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.topk_threshold, theirs.topk_threshold, rtol=1e-5, atol=0)


def test_training_learns_and_sae_lens_reads_the_result(tiny: Model, corpus: str, tmp_path: Path) -> None:
    from sae_lens import SAE as TheirSAE

    notes: list[Progress] = []
    folder = train(tiny, [corpus], SPEC, tmp_path / "run", progress=notes.append)
    card = json.loads((folder / "card.json").read_text())
    stages = [note.stage for note in notes]
    assert set(stages) == {"activations", "training", "features", "loss"}
    assert stages == sorted(stages, key=["activations", "training", "features", "loss"].index)
    sae = open_sae(str(folder))
    assert (sae.site, sae.model_name, sae.d_sae) == (Site(layer=1), tiny.name, 48)
    assert card["fvu"] < 0.5 < 1.0, "after training more than half of the variance must be explained"
    assert card["trained"]["samples"] == 4096
    assert sae.max_act is not None
    assert sae.density is not None
    assert card["alive"] == pytest.approx(float((sae.density > 0).float().mean()))
    x = torch.randn(20, tiny.d_model) * 2
    theirs = TheirSAE.load_from_disk(str(folder))
    torch.testing.assert_close(sae.encode(x), theirs.encode(x).detach(), rtol=1e-5, atol=1e-5)


def test_a_killed_training_resumes_to_the_same_weights(
    tiny: Model, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tiny, [corpus], SPEC, tmp_path / "whole")
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0.0)  # a checkpoint after every step
    killed = tmp_path / "killed"
    shutil.copytree(tmp_path / "whole" / "activations", killed / "activations")

    def die(note: Progress) -> None:
        if note.stage == "training":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny, [corpus], SPEC, killed, progress=die)
    assert list(killed.glob("checkpoint-*"))
    assert not (killed / "sae").exists()
    again = train(tiny, [corpus], SPEC, killed)
    assert (again / "sae_weights.safetensors").read_bytes() == (whole / "sae_weights.safetensors").read_bytes()
    assert not list(killed.glob("checkpoint-*"))
    with pytest.raises(MismatchError, match="width: 48 there, 64 now"):
        train(tiny, [corpus], SPEC.model_copy(update={"width": 64}), killed)


def test_bfloat16_weights_on_disk_leave_biases_exact(tiny: Model, corpus: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = train(tiny, [corpus], SPEC.model_copy(update={"save_dtype": "bfloat16", "samples": 256}), tmp_path / "run")
    kinds = {name: tensor.dtype for name, tensor in load_file(folder / "sae_weights.safetensors").items()}
    assert kinds.pop("W_enc") == kinds.pop("W_dec") == torch.bfloat16
    assert set(kinds.values()) == {torch.float32}


@pytest.mark.parametrize("architecture", ["matryoshka", "topk", "jumprelu", "gated", "standard"])
def test_every_architecture_trains(tiny: Model, corpus: str, tmp_path: Path, architecture: str) -> None:
    spec = SPEC.model_copy(update={"architecture": architecture, "samples": 512})
    sae = open_sae(str(train(tiny, [corpus], spec, tmp_path / "run")))
    assert sae.architecture == {"matryoshka": "jumprelu"}.get(architecture, architecture)
    assert sae.encode(torch.randn(5, tiny.d_model)).shape == (5, 48)


@pytest.mark.parametrize(
    ("change", "text", "message"),
    [
        ({"k": 100}, None, "k = 100 active features cannot exceed the width, 48"),
        ({"layer": 99}, None, "no site model.layers.99.output"),
        ({"field": "body"}, None, "no text field 'body'"),
        ({}, "missing.jsonl", "No such file: missing.jsonl"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    tiny: Model, corpus: str, tmp_path: Path, change: dict[str, Any], text: str | None, message: str
) -> None:
    with pytest.raises((InputError, FileError), match=message):
        train(tiny, [text or corpus], SPEC.model_copy(update=change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def plain_sae(tiny: Model, W_enc: Tensor, W_dec: Tensor) -> SAE:
    n = W_dec.shape[0]
    return SAE("test", "standard", Site(layer=1), tiny.name, W_enc, torch.zeros(n), W_dec, torch.zeros(tiny.d_model))


def test_splicing_a_perfect_sae_recovers_all_and_a_blank_one_nothing(tiny: Model) -> None:
    """x = relu(x) - relu(-x) is a perfect SAE; decoding to nothing is the zero ablation itself."""
    eye = torch.eye(tiny.d_model)
    perfect = plain_sae(tiny, torch.cat([eye, -eye], 1), torch.cat([eye, -eye]))
    blank = plain_sae(tiny, torch.cat([eye, -eye], 1), torch.zeros(2 * tiny.d_model, tiny.d_model))
    contexts = [Context((1, *range(10, 30)), "s", i) for i in range(3)]
    found = spliced_loss(tiny, perfect, contexts, limit=float("inf"))
    assert found["loss_tokens"] == 3 * 19
    assert found["ce_recovered"] == pytest.approx(1.0, abs=1e-2)
    assert spliced_loss(tiny, blank, contexts, limit=float("inf"))["ce_recovered"] == pytest.approx(0.0, abs=1e-2)


def test_feature_statistics_equal_brute_force(tiny: Model) -> None:
    torch.manual_seed(0)
    sae = plain_sae(tiny, torch.randn(tiny.d_model, 20), torch.randn(20, tiny.d_model))
    shards = [torch.randn(30, tiny.d_model), torch.randn(30, tiny.d_model)]
    max_act, count, tokens = feature_statistics(sae, iter(shards), 50)
    f = sae.encode(torch.cat(shards)[:50])
    assert tokens == 50
    torch.testing.assert_close(max_act, f.amax(0))
    assert torch.equal(count, (f > 0).sum(0))


def test_decoder_max_cosine_finds_the_twin(tiny: Model) -> None:
    rows = torch.eye(tiny.d_model)[:4].clone()
    rows[3] = 5 * rows[0] + 5 * rows[1]
    sae = plain_sae(tiny, rows.T.clone(), rows)
    torch.testing.assert_close(decoder_max_cosine(sae), torch.tensor([0.5**0.5, 0.5**0.5, 0.0, 0.5**0.5]))
