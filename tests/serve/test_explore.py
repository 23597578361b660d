"""What the page asks besides: its own files, where to begin, cards, lists, readings, recipe files, reports."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import unescape
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from trimtab.evidence.trace import trace
from trimtab.index.store import Index
from trimtab.serve import explore_responses as responses
from trimtab.serve.responses import JobList
from trimtab.steer.generate import generate
from trimtab.steer.recipe import Recipe
from trimtab.testing.planted import PlantedWorld

if TYPE_CHECKING:
    from tests.serve.conftest import Server, Serving


@pytest.fixture(scope="module")
def indexed(
    world: PlantedWorld, index: Index, serving: Serving, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with serving(world.model, [world.sae], tmp_path_factory.mktemp("recipes"), index=index) as one:
        yield one


def test_the_page_and_its_parts(server: Server) -> None:
    page = server.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    named = {one.split('"')[0] for one in page.text.split('"/page/')[1:]}
    assert {"main.js", "base.css", "icon.svg"} <= named
    for name in named:
        part = server.get(f"/page/{name}")
        assert part.status_code == 200, name
        again = server.get(f"/page/{name}", headers={"If-None-Match": part.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for name in ("nothing.js", "..%2fapp.py", "%2e%2e/app.py"):
        assert server.get(f"/page/{name}").status_code == 404


def test_the_page_needs_no_key_but_what_it_asks_does(serving: Serving, world: PlantedWorld, tmp_path: Any) -> None:
    with serving(world.model, [world.sae], tmp_path, key="a-long-enough-key", hosts=None) as one:
        assert one.get("/").status_code == 200
        assert one.get("/page/main.js").status_code == 200
        assert one.get("/api/start").status_code == 401
        assert one.get("/page/").status_code == 404


def test_where_to_begin(server: Server, indexed: Server) -> None:
    bare, whole = (responses.Start.parse(one.get("/api/start").json()).model_dump() for one in (server, indexed))
    assert (bare["index"], bare["example"]["cards"]) == (None, [])
    assert "sea" in {one["name"] for one in bare["sets"]}
    assert whole["index"]["map"] is False
    assert len(whole["example"]["cards"]) == 6
    found = indexed.get("/api/sets/sea").json()
    responses.ContrastTexts.parse(found)
    assert len(found["positive"]) == len(found["negative"]) > 8
    assert indexed.get("/api/sets/none").status_code == 404


def test_cards_and_lists(indexed: Server, server: Server, world: PlantedWorld, index: Index) -> None:
    feature = world.concepts["sea"]
    (card,) = indexed.get(f"/api/cards?features={feature}").json()["cards"]
    responses.Card.parse(card)
    known = index.feature(feature)
    assert card["max_act"] == pytest.approx(float(world.sae.max_act[feature]))  # type: ignore[index]
    assert set(card["words"]) == set(world.words["sea"])
    assert card["histogram"] == [list(one) for one in known.histogram]
    for shown, example in zip(card["examples"], known.examples, strict=False):
        assert example.value in shown["values"]
    found = indexed.get("/api/cards?q=wave").json()["cards"]
    assert feature in [one["feature"] for one in found]
    assert "fires on it" in found[0]["why"]
    listed = indexed.get("/api/features?order=density&most=3").json()
    responses.Features.parse(listed)
    densities = [row["density"] for row in index.query("from features where count > 0 order by density desc")]
    assert [one["density"] for one in listed["features"]] == densities[:3]
    assert listed["total"] == len(densities)
    after = indexed.get("/api/features?order=density&start=2&most=1").json()
    assert after["features"] == listed["features"][2:]
    assert [one["feature"] for one in indexed.get("/api/features?only=5,3").json()["features"]] == [3, 5]
    for path in ("/api/cards", "/api/cards?features=1&q=x", "/api/cards?features=1,", "/api/features?only=x"):
        assert indexed.get(path).status_code == 400, path
    for path in ("/api/cards?features=999", "/api/map"):
        assert indexed.get(path).status_code == 404, path
    assert server.get("/api/cards?features=3").json()["cards"][0]["feature"] == 3
    assert server.get("/api/cards?q=wave").status_code == 404


def test_readings_are_those_of_the_tokens_that_were_written(server: Server, world: PlantedWorld) -> None:
    features = [world.concepts["sea"], world.readers["fire"]]
    (record,) = generate(world.model, "the cat saw", Recipe.add(world.sae, {features[0]: 2.0}), max_new_tokens=15)
    passage = {"prompt": record.prompt, "text": record.text}
    answer = server.post("/api/readings", {"passages": [passage], "features": features}).json()
    responses.Readings.parse(answer)
    (got,) = answer["readings"]
    (strengths,) = trace(world.model, world.sae, features, [record.token_ids])
    expected = strengths[record.generated_from - 1 :] / world.sae.max_act[features]  # type: ignore[index]
    assert "".join(got["tokens"]).strip() == record.text.strip()
    assert got["shares"][0] == pytest.approx(expected[:, 0].tolist(), abs=1e-3)
    assert got["shares"][1] == pytest.approx(expected[:, 1].tolist(), abs=1e-3)
    assert max(got["shares"][0]) > 0.5
    for passages, wanted in (([{"prompt": "a", "text": ""}], [1]), ([passage], [999]), ([], [1]), ([passage], [])):
        assert server.post("/api/readings", {"passages": passages, "features": wanted}).status_code == 400
    long = {"prompt": "the cat " * 200, "text": "saw"}
    assert "limit is 210" in server.post("/api/readings", {"passages": [long], "features": [1]}).text


def test_a_recipe_file_goes_out_and_comes_back(server: Server, world: PlantedWorld) -> None:
    new = {"id": "out", "steering": {"features": [{"feature": 3, "strength": 0.7}]}}
    made = server.post("/api/recipes", new).json()
    file = server.get("/api/recipes/out/file")
    assert 'filename="out.recipe.safetensors"' in file.headers["content-disposition"]
    back = server.post("/api/recipe-files", {"id": "back", "file": base64.b64encode(file.content).decode()})
    assert back.status_code == 201, back.text
    assert back.json() == {**made, "id": "back"}
    broken = base64.b64encode(file.content[:-5]).decode()
    for text in ("", "not base64!", "café", base64.b64encode(b"x" * 99).decode(), broken):
        refused = server.post("/api/recipe-files", {"id": "no", "file": text})
        assert refused.status_code == 400, text
        assert "/tmp" not in refused.text
    assert "no" not in server.get("/api/recipes").json()["recipes"]
    assert server.get("/api/recipes/none/file").status_code == 404
    for name in ("out", "back"):
        assert httpx.delete(f"{server.url}/api/recipes/{name}").status_code == 204


def test_a_verification_as_tables_and_as_a_page(server: Server, world: PlantedWorld) -> None:
    steering = {"features": [{"feature": world.concepts["sea"], "strength": 2.0}]}
    body = {"steering": steering, "prompts": ["the cat saw"], "samples": 2, "max_tokens": 5}
    where = f"/api/jobs/{server.post('/api/verify', body).json()['id']}"
    assert server.get(f"{where}/tables").status_code in (200, 409)
    server.wait(lambda: server.get(where).json()["state"] != "running")
    job, told, page = server.get(where).json(), server.get(f"{where}/tables").json(), server.get(f"{where}/report")
    responses.VerdictInWords.parse(told)
    assert told["verdict"] == job["result"]["verdict"]
    assert [row[0] for row in told["arms"]["rows"]] == [arm["label"] for arm in job["result"]["arms"]]
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'sha256-" in page.headers["content-security-policy"]
    assert all(reason[1:] in unescape(page.text) for reason in told["reasons"])
    dose = f"/api/jobs/{server.post('/api/dose', {'steering': steering, 'texts': 0}).json()['id']}"
    assert server.get(f"{dose}/report").status_code == 409
    server.wait(lambda: server.get(dose).json()["state"] != "running")
    assert server.get("/api/jobs/none/tables").status_code == 404
    listed = JobList.parse(server.get("/api/jobs").json()).jobs
    assert [(one.kind, one.state, one.result) for one in listed] == [("dose", "done", None), ("verify", "done", None)]
