"""The official client against a server: what it writes is what `generate` writes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import openai
import pytest

from trimtab.steer.generate import generate
from trimtab.steer.recipe import Recipe
from trimtab.testing.models import tiny_model
from trimtab.testing.planted import PlantedWorld

if TYPE_CHECKING:
    from tests.serve.conftest import Server, Serving

PROMPT = "the cat saw"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as one:
        yield one


def ask(client: openai.OpenAI, **more: Any) -> Any:
    return client.completions.create(**{"model": "planted", "prompt": PROMPT, "max_tokens": 12, "seed": 3, **more})


def texts(world: PlantedWorld, prompt: Any = PROMPT, recipe: Any = None, **more: Any) -> list[str]:
    settings = {"max_new_tokens": 12, "seed": 3, **more}
    return [one.text for one in generate(world.model, prompt, recipe, **settings)]


def fire(world: PlantedWorld) -> dict[str, Any]:
    return {"features": [{"feature": world.concepts["fire"], "strength": 2.0}]}


def test_a_completion_is_what_generate_writes(client: openai.OpenAI, world: PlantedWorld) -> None:
    answer = ask(client, n=3)
    assert [choice.text for choice in answer.choices] == texts(world, samples=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.finish_reason for choice in answer.choices} <= {"stop", "length"}
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 36)
    assert answer.model == "planted"
    assert ask(client, prompt=["a dog", PROMPT]).choices[1].text == texts(world)[0]
    warm = {"temperature": 0.5, "top_p": 0.8}
    assert ask(client, **warm, extra_body={"top_k": 9}).choices[0].text == texts(world, **warm, top_k=9)[0]


def test_a_seed_that_was_drawn_is_told(client: openai.OpenAI, world: PlantedWorld) -> None:
    answer = ask(client, seed=openai.omit)
    assert answer.choices[0].text == texts(world, seed=answer.trimtab["seed"])[0]
    assert ask(client, seed=openai.omit).trimtab["seed"] != answer.trimtab["seed"]


def test_steering_with_features_and_its_receipt(client: openai.OpenAI, world: PlantedWorld) -> None:
    answer = ask(client, extra_body={"steering": fire(world), "receipt": True})
    recipe = Recipe.add(world.sae, {world.concepts["fire"]: 2.0})
    assert answer.choices[0].text == texts(world, recipe=recipe)[0] != texts(world)[0]
    assert answer.trimtab["recipe"]["digest"] == recipe.digest
    assert list(answer.choices[0].receipt) == ["model.layers.1.output"]
    done = answer.choices[0].receipt["model.layers.1.output"]
    # BOS is left alone, and the last token is not read
    assert (done["prompt_tokens"], done["generated_tokens"]) == (3, 11)
    assert done["ratio"] > 0


def test_every_edit_unit_and_scope(client: openai.OpenAI, world: PlantedWorld) -> None:
    one, sae = world.concepts["fire"], world.sae
    features = [{"feature": one, "strength": 1.5}]
    for given, recipe in (
        ({"edit": "clamp", "unit": "raw"}, Recipe.clamp(sae, {one: 1.5}, "raw")),
        ({"edit": "min"}, Recipe.min(sae, {one: 1.5})),
        ({"edit": "scale"}, Recipe.scale(sae, {one: 1.5})),
        ({"edit": "ablate"}, Recipe.ablate(sae, [one])),
        ({"unit": "norm", "sae": "planted"}, Recipe.add(sae, {one: 1.5}, "norm")),
    ):
        answer = ask(client, extra_body={"steering": {"features": features, **given}})
        assert answer.trimtab["recipe"]["digest"] == recipe.digest
        assert answer.choices[0].text == texts(world, recipe=recipe)[0]
    answer = ask(client, extra_body={"steering": {**fire(world), "scope": {"prompt": False}}, "receipt": True})
    assert answer.choices[0].receipt["model.layers.1.output"]["prompt_tokens"] == 0


def test_streaming_gives_the_same_text_in_pieces(client: openai.OpenAI, world: PlantedWorld) -> None:
    stream = ask(
        client, n=2, stream=True, stream_options={"include_usage": True}, extra_body={"steering": fire(world)}
    )  # fmt: skip
    pieces: dict[int, list[str]] = {0: [], 1: []}
    reasons, usage = {}, None
    for chunk in stream:
        usage = chunk.usage
        for choice in chunk.choices:
            pieces[choice.index].append(choice.text)
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    assert ["".join(pieces[i]) for i in (0, 1)] == texts(
        world, recipe=Recipe.add(world.sae, {world.concepts["fire"]: 2.0}), samples=2
    )
    assert len(pieces[0]) > 5
    assert set(reasons) == {0, 1}
    assert usage.completion_tokens == 24


def test_a_stop_string_ends_the_text_before_it(client: openai.OpenAI, world: PlantedWorld) -> None:
    whole = texts(world, max_new_tokens=40)[0]
    stop = " " + " ".join(whole.split()[4:6])  # over two tokens
    before = whole[: whole.index(stop)]
    for more in ({"stop": stop}, {"stop": ["zzz", stop]}):
        answer = ask(client, max_tokens=40, logprobs=0, **more)
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == (before, "stop")
        assert "".join(answer.choices[0].logprobs.tokens).strip() == before.strip()
    streamed = [c.choices[0].text for c in ask(client, max_tokens=40, stop=stop, stream=True)]
    assert "".join(streamed) == before


def test_log_probabilities(client: openai.OpenAI, world: PlantedWorld) -> None:
    answer = ask(client, logprobs=2, temperature=0).choices[0]
    told = answer.logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == 12
    for token, score, top in zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True):
        assert len(top) == 2
        assert max(top, key=top.get) == token  # greedy
        assert top[token] == pytest.approx(score)
    streamed = [c.choices[0].logprobs for c in ask(client, logprobs=2, temperature=0, stream=True)]
    assert [score for one in streamed for score in one.token_logprobs] == pytest.approx(told.token_logprobs, abs=1e-5)


def test_models(client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()] == ["planted"]
    assert client.models.retrieve("planted").id == "planted"
    with pytest.raises(openai.NotFoundError, match="this server has 'planted'"):
        client.models.retrieve("gpt-4")


def test_sixteen_clients_with_their_own_recipes_get_what_they_get_alone(server: Server, world: PlantedWorld) -> None:
    """Over twice the places there are, half of them streaming, in one batch that rows enter and leave."""
    names = list(world.concepts)
    recipes = [
        Recipe.add(world.sae, {world.concepts[names[i % len(names)]]: 0.5 + i / 8}) if i % 4 else None
        for i in range(16)
    ]

    async def one(client: openai.AsyncOpenAI, i: int) -> str:
        extra: dict[str, Any] = {}
        if i % 4:
            feature = {"feature": world.concepts[names[i % len(names)]], "strength": 0.5 + i / 8}
            extra = {"steering": {"features": [feature]}}
        ask = {"model": "planted", "prompt": f"{PROMPT} the dog", "max_tokens": 10 + 3 * i, "seed": i}
        if i % 2:
            return (await client.completions.create(**ask, extra_body=extra)).choices[0].text
        stream = await client.completions.create(**ask, extra_body=extra, stream=True)
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            return list(await asyncio.gather(*(one(client, i) for i in range(16))))

    got = asyncio.run(all_of_them())
    for i, recipe in enumerate(recipes):
        settings = {"max_new_tokens": 10 + 3 * i, "seed": i}
        assert got[i] == texts(world, f"{PROMPT} the dog", recipe, **settings)[0]


def test_a_client_that_goes_away_frees_its_place(server: Server, client: openai.OpenAI) -> None:
    worker = server.service.worker
    stream = ask(client, stream=True, max_tokens=150, n=8, temperature=0.1)
    next(iter(stream))
    assert worker.rows == 8
    stream.close()
    server.wait(lambda: worker.rows == 0 and not worker.tickets)
    written = server.service.metrics.tokens._value.get()
    with pytest.raises(openai.APITimeoutError):
        ask(client, max_tokens=150, n=32, timeout=0.05)
    server.wait(lambda: worker.rows == 0 and not worker.engine.busy)
    assert server.service.metrics.tokens._value.get() - written < 32 * 150
    assert ask(client).choices[0].text


def test_a_chat_needs_a_template(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"no chat template. Send a plain prompt to /v1/completions"):
        client.chat.completions.create(model="planted", messages=[{"role": "user", "content": "Hi"}])


def test_chat(serving: Serving, tmp_path: Any) -> None:
    model = tiny_model("gemma3_text")
    model.tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    )
    ask: dict[str, Any] = {
        "model": model.name,
        "messages": [{"role": "system", "content": "Be"}, {"role": "user", "content": [{"type": "text", "text": "é"}]}],
        "seed": 5,
        "max_completion_tokens": 30,
    }
    expected = generate(model, "<system>Be<user>é<assistant>", seed=5, max_new_tokens=30)[0]
    with serving(model, [], tmp_path) as server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="x") as client:
        answer = client.chat.completions.create(**ask, logprobs=True, top_logprobs=1)
        choice = answer.choices[0]
        assert choice.message.content == expected.text
        assert choice.message.role == "assistant"
        assert answer.usage.prompt_tokens == len(model.encode("<system>Be<user>é<assistant>"))
        assert choice.logprobs.content[0].top_logprobs[0].logprob >= choice.logprobs.content[0].logprob
        chunks = list(client.chat.completions.create(**ask, stream=True))
        assert chunks[0].choices[0].delta.role == "assistant"
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == expected.text
        with pytest.raises(openai.BadRequestError, match="top_logprobs needs logprobs"):
            client.chat.completions.create(**ask, top_logprobs=2)
        with pytest.raises(openai.BadRequestError, match="has no SAE"):
            client.chat.completions.create(**ask, extra_body={"steering": {"features": [{"feature": 1}]}})


def test_a_steering_that_breaks_the_model_does_not_disturb_others(server: Server, world: PlantedWorld) -> None:
    """A strength within bounds cannot break float32, so a recipe file of somebody's own does it."""
    steep = Recipe.vector(world.directions["fire"], 1, 3e38) + Recipe.vector(world.directions["fire"], 1, 3e38)
    server.service.recipes.save("steep", steep)
    with ThreadPoolExecutor() as pool:
        body = {"model": "planted", "prompt": PROMPT, "max_tokens": 60, "seed": 3}
        fine = pool.submit(server.post, "/v1/completions", body)
        bad = server.post("/v1/completions", {**body, "steering": "steep"})
        assert bad.status_code == 400
        assert bad.json()["error"]["code"] == "not_finite"
        assert fine.result().json()["choices"][0]["text"] == texts(world, max_new_tokens=60)[0]
