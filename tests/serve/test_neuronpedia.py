"""Neuronpedia's shape: what its clients send and read, against what `generate` writes."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from trimtab.serve.limits import Limits
from trimtab.spec import Scope
from trimtab.steer.generate import generate
from trimtab.steer.recipe import Recipe
from trimtab.testing.models import tiny_model
from trimtab.testing.planted import PlantedWorld

if TYPE_CHECKING:
    from tests.serve.conftest import Server, Serving

PATH = "/v1/steer/completion"
EVERYWHERE = Scope(bos=True)


def ask(world: PlantedWorld, **more: Any) -> dict[str, Any]:
    """A request as Neuronpedia's web application makes it."""
    feature = {"model": "planted", "source": "1-planted-res-32", "index": world.concepts["fire"], "strength": 4.0}
    return {
        "prompt": "the cat saw", "model": "planted", "steerMethod": "SIMPLE_ADDITIVE", "normalizeSteering": False,
        "types": ["STEERED", "DEFAULT"], "features": [feature], "nCompletionTokens": 10, "temperature": 1.0,
        "strengthMultiplier": 1.5, "freqPenalty": 1.0, "seed": 16.0, **more,
    }  # fmt: skip


def written(world: PlantedWorld, recipe: Recipe | None, **more: Any) -> str:
    return generate(world.model, "the cat saw", recipe, **{"max_new_tokens": 10, "seed": 16, **more})[0].text


def refused(server: Server, body: Any, status: int = 400) -> str:
    response = server.post(PATH, body)
    assert response.status_code == status, response.text
    return str(response.json()["error"]["message"])


def test_both_texts_are_those_of_generate(server: Server, world: PlantedWorld) -> None:
    answer = server.post(PATH, ask(world)).json()
    recipe = Recipe.add(world.sae, {world.concepts["fire"]: 6.0}, "raw", EVERYWHERE)
    steered, default = written(world, recipe), written(world, None)
    assert steered != default
    assert answer == {
        "outputs": [{"type": "STEERED", "output": steered}, {"type": "DEFAULT", "output": default}]
    }  # fmt: skip
    only = server.post(PATH, ask(world, types=["DEFAULT"], features=None)).json()
    assert only == {"outputs": [{"type": "DEFAULT", "output": default}]}


def test_names_in_snake_case_are_taken_as_well(server: Server, world: PlantedWorld) -> None:
    def snake(name: str) -> str:
        return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)

    body = ask(world)
    assert server.post(PATH, {snake(k): v for k, v in body.items()}).json() == server.post(PATH, body).json()


def test_vectors(server: Server, world: PlantedWorld) -> None:
    direction = world.directions["sea"] * 2
    vector = {"steeringVector": direction.tolist(), "strength": 3.0, "hook": "blocks.1.hook_resid_post"}
    for normalize, length in ((False, 9.0), (True, 4.5)):
        body = ask(world, features=None, vectors=[vector], normalizeSteering=normalize, types=["STEERED"])
        recipe = Recipe.vector(world.directions["sea"], 1, length, scope=EVERYWHERE)
        assert server.post(PATH, body).json()["outputs"][0]["output"] == written(world, recipe)


def test_log_probabilities(server: Server, world: PlantedWorld) -> None:
    output = server.post(PATH, ask(world, nLogprobs=2, temperature=0, types=["STEERED"])).json()["outputs"][0]
    assert "".join(one["token"] for one in output["logprobs"]) == output["output"]
    for one in output["logprobs"]:
        best = one["topLogprobs"][0]
        assert (best["token"], best["logprob"]) == (one["token"], pytest.approx(one["logprob"]))
        assert len(one["topLogprobs"]) == 2


def test_frames_of_a_stream_hold_the_whole_text_so_far(server: Server, world: PlantedWorld) -> None:
    frames = []
    with httpx.stream("POST", server.url + PATH, json=ask(world, stream=True, nLogprobs=1), timeout=30) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line:
                frames.append(json.loads(line.removeprefix("data: ")))
    assert frames[-1] == server.post(PATH, ask(world, nLogprobs=1)).json()
    for before, after in pairwise(frames):
        for a, b in zip(before["outputs"], after["outputs"], strict=True):
            assert b["output"].startswith(a["output"])
    assert len(frames) > 10


def test_what_cannot_be_honoured_is_refused(server: Server, world: PlantedWorld) -> None:
    feature = ask(world)["features"][0]
    for method in ("ORTHOGONAL_DECOMP", "PROJECTION_CAP"):
        assert "only SIMPLE_ADDITIVE" in refused(server, ask(world, steerMethod=method))
    assert "either features or vectors" in refused(server, ask(world, vectors=[]))
    assert "either features or vectors" in refused(server, ask(world, features=None))
    assert "nothing to steer with" in refused(server, ask(world, features=[]))
    wrong = {**feature, "source": "9-other-res"}
    assert "planted (block 1)" in refused(server, ask(world, features=[wrong]))
    assert refused(server, ask(world, features=[{**feature, "steeringVector": [1.0]}]))
    assert refused(server, ask(world, customAxes=[]))
    assert "limit is 150" in refused(server, ask(world, nCompletionTokens=151))
    zero = {"steeringVector": [0.0] * 32, "strength": 1.0, "hook": "blocks.1.hook_resid_post"}
    assert "length" in refused(server, ask(world, features=None, vectors=[zero], normalizeSteering=True))
    assert refused(server, ask(world, features=None, vectors=[{**zero, "steeringVector": [1.0]}]))
    assert refused(server, ask(world, features=None, vectors=[{**zero, "hook": "blocks.1.attn.hook_z"}]))
    assert "'planted'" in refused(server, ask(world, model="gpt2-small"), 404)
    assert "no chat template" in server.post(
        f"{PATH}-chat", ask(world, prompt=[{"role": "user", "content": "hi"}], steerSpecialTokens=False)
    ).json()["error"]["message"]  # fmt: skip


def test_a_client_with_other_servers_is_told_at_once_that_this_one_is_busy(
    serving: Serving, world: PlantedWorld, tmp_path: Path
) -> None:
    with serving(world.model, [world.sae], tmp_path, limits=Limits(slots=1, queue=4)) as server:
        assert "failIfBusy" in refused(server, ask(world, failIfBusy=True), 429)
        assert server.post(PATH, ask(world)).status_code == 200
        assert server.post(PATH, ask(world, failIfBusy=True, types=["DEFAULT"])).status_code == 200


def test_chat(serving: Serving, tmp_path: Path) -> None:
    model = tiny_model("gemma3_text")
    model.tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    )
    vector = {"steeringVector": [3.0] * model.d_model, "strength": 1.0, "hook": "blocks.0.hook_resid_post"}
    turns = [{"role": "user", "content": "Hi"}]
    body = {
        "prompt": turns, "model": model.name, "steerMethod": "SIMPLE_ADDITIVE", "normalizeSteering": False,
        "types": ["STEERED", "DEFAULT"], "vectors": [vector], "nCompletionTokens": 12, "temperature": 1.0,
        "strengthMultiplier": 1.0, "freqPenalty": 0.0, "seed": 3.0,
    }  # fmt: skip
    with serving(model, [], tmp_path) as server:
        for special in (True, False):
            answer = server.post(f"{PATH}-chat", {**body, "steerSpecialTokens": special}).json()
            scope = Scope(bos=True, exclude=() if special else (0,))
            recipe = Recipe.vector(model_vector(model), 0, scope=scope)
            texts = [
                generate(model, "<user>Hi<assistant>", one, seed=3, max_new_tokens=12)[0].text for one in (recipe, None)
            ]
            raw = answer["input"]["raw"]
            assert answer["input"]["chatTemplate"] == turns
            for output, kind, text in zip(answer["outputs"], ("STEERED", "DEFAULT"), texts, strict=True):
                assert output["type"] == kind
                assert output["chatTemplate"] == [*turns, {"role": "assistant", "content": text}]
                assert output["raw"] == raw + text


def model_vector(model: Any) -> Any:
    import torch

    return torch.full((model.d_model,), 3.0)
