"""What the page asks besides: where to begin, features by the page, the map, and chosen features in whole texts."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from trimtab import __version__
from trimtab.errors import InputError
from trimtab.find.sources import SHIPPED_ABOUT, shipped, shipped_names
from trimtab.index.search import find
from trimtab.index.store import Index, titles
from trimtab.lm.pieces import pieces
from trimtab.lm.reading import bos_length
from trimtab.sae.sae import SAE
from trimtab.serve.body import Body
from trimtab.serve.cards import cards, first_sae, make_beginning
from trimtab.serve.described import WRITTEN, documented, example
from trimtab.serve.explore_responses import Cards, ContrastTexts, FeatureMap, Features, Readings, Start
from trimtab.serve.limits import ApiError
from trimtab.serve.service import Service
from trimtab.spec import Spec

if TYPE_CHECKING:
    from trimtab.lm.model import Model

_ORDERS = {"number": "feature", "density": "density desc, feature", "strength": "max desc, feature"}
Numbers = Annotated[
    Annotated[str, Query(pattern=r"^[0-9]{1,7}(,[0-9]{1,7}){0,63}$")] | None,
    Query(description="Only these features, such as 3,11330."),
]


Words = Annotated[str, Query(min_length=1, max_length=200)]


class Passage(Spec):
    """A text that was written, and what it continues."""

    prompt: Annotated[str, Field(max_length=20_000, description="What came before.")]
    text: Annotated[str, Field(max_length=20_000, description="What was written.")]


class ReadingsRequest(Body):
    """POST /api/readings."""

    passages: Annotated[tuple[Passage, ...], Field(min_length=1, max_length=32, description="Texts to read.")]
    features: Annotated[
        tuple[Annotated[int, Field(ge=0, le=2**31)], ...],
        Field(min_length=1, max_length=64, description="Features to read in them."),
    ]

    model_config = example(
        {"passages": [{"prompt": "She opened the door", "text": " and smelled bread."}], "features": [11330]}
    )


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Explore"])
    mapped: list[dict[str, Any]] = []
    once = ThreadPoolExecutor(1)
    beginning = once.submit(make_beginning, service)  # the same for all who come, so it is made before the first does
    once.shutdown(wait=False)

    def index() -> Index:
        if service.index is None:
            raise ApiError(404, "This server has no index of its SAE's features (see --index).", code="no_index")
        return service.index

    @routes.get("/api/start", responses=documented("What is served.", Start))
    def start() -> JSONResponse:
        """What is served, the limits, the shipped contrast sets, and a few features to begin with."""
        sae, known = first_sae(service), service.index
        about = {
            "version": __version__,
            "model": {"name": service.model.name, "layers": service.model.n_layers, "context": service.worker.longest},
            "sae": sae and {"name": sae.name, "site": str(sae.site), "features": sae.d_sae},
            "index": known and {"about": known.describe(), "features": known.features, "map": known.has("map")},
            "sets": [{"name": name, "sides": SHIPPED_ABOUT[name]} for name in shipped_names()],
            "recipes": service.recipes.names(),
            "limits": service.limits.model_dump(include={"prompt_tokens", "max_tokens", "rows"}),
            "example": beginning.result(),
        }
        return JSONResponse(about)

    @routes.get("/api/sets/{name}", responses=documented("The set.", ContrastTexts, (404,)))
    def contrast_set(name: Annotated[str, Path(description="Name of a shipped contrast set.")]) -> JSONResponse:
        """The texts of a shipped contrast set."""
        if name not in shipped_names():
            raise ApiError(404, f"No shipped contrast set {name[:80]!r}. Valid: {', '.join(shipped_names())}.")
        one = shipped(name)
        return JSONResponse(
            {
                "name": name,
                "sides": SHIPPED_ABOUT[name],
                "paired": one.paired,
                "positive": one.positive,
                "negative": one.negative,
            }
        )

    @routes.get("/api/cards", responses=documented("The features.", Cards, (400, 404)))
    def some_cards(
        features: Numbers = None,
        q: Annotated[Words | None, Query(description="Words to search for instead.")] = None,
        most: Annotated[int, Query(ge=1, le=64, description="How many to find.")] = 12,
    ) -> JSONResponse:
        """A short view of some features, or of those that a search finds."""
        if (features is None) == (q is None):
            raise InputError("Give either features or q.")
        if q is not None:
            known = index()
            with service.index_lock:
                return JSONResponse(
                    {"cards": cards(service, [(hit.feature, hit.why) for hit in find(known, q, most=most)])}
                )
        numbers = dict.fromkeys(int(one) for one in str(features).split(","))
        with service.index_lock:
            return JSONResponse({"cards": cards(service, [(number, "") for number in numbers])})

    @routes.get("/api/features", responses=documented("The features.", Features, (400, 404)))
    def listed(
        order: Annotated[Literal["number", "density", "strength"], Query(description="What comes first.")] = "number",
        start: Annotated[int, Query(ge=0, le=2**31, description="How many to pass over.")] = 0,
        most: Annotated[int, Query(ge=1, le=200, description="How many to list.")] = 50,
        only: Numbers = None,
    ) -> JSONResponse:
        """Features that ever fired, a page at a time; or some by number, with what they are called."""
        known = index()
        where = "count > 0" if only is None else f"feature in ({only})"
        with service.index_lock:
            rows = known.query(
                f"select feature, count, density, max, count(*) over () as total from features where {where} "
                f"order by {_ORDERS[order]} limit ? offset ?", [most, start],
            )  # fmt: skip
            labels = known.labels([row["feature"] for row in rows])
            words = known.words([row["feature"] for row in rows], most=4)
        total = rows[0].pop("total") if rows else 0
        for row in rows:
            row.pop("total", None)
            best = labels.get(row["feature"], ())
            row["label"] = best[0].text if best else ", ".join(w.text.strip() for w in words.get(row["feature"], ()))
            row["score"] = best[0].score if best else None
        return JSONResponse({"features": rows, "total": total})

    @routes.get("/api/map", responses=documented("The map.", FeatureMap, (404,)))
    def feature_map() -> JSONResponse:
        """Where features lie on the map of decoder rows, their clusters and names; 404 where the index has no map."""
        known = index()
        if not known.has("map"):
            raise ApiError(404, "The index has no map: `trimtab index map` adds one.", code="no_map")
        if not mapped:
            with service.index_lock:
                mapped.append(_map(known))
        return JSONResponse(mapped[0])

    @routes.post("/api/readings", responses=documented("What is read.", Readings, WRITTEN))
    async def readings(body: ReadingsRequest) -> JSONResponse:
        """How strongly chosen features fire on each token of texts, read by the unsteered model.

        `share`: of the feature's largest activation on record. `tokens` and the rows of `shares` are of `text` alone.
        """
        sae = first_sae(service)
        if sae is None:
            raise ApiError(404, "This server has no SAE.", code="no_sae")
        features = list(dict.fromkeys(body.features))
        sae.features(features)
        whole = await run_in_threadpool(lambda: [_ids(service.model, one) for one in body.passages])
        most = service.limits.prompt_tokens + service.limits.max_tokens
        longest = max(len(before) + len(after) for before, after in whole)
        if longest > most:
            raise ApiError(400, f"A text has {longest} tokens; the limit is {most}.", param="passages")
        if not all(after for _, after in whole):
            raise InputError("A text is empty.")
        found = await service.between_steps(lambda: _read(service, sae, features, whole))
        return JSONResponse({"features": features, "readings": found})

    return routes


def _ids(model: Model, one: Passage) -> tuple[list[int], list[int]]:
    """Tokens of the prompt and of the text, encoded apart as when the text was written."""
    after = model.encode(one.text) if one.text else []
    return model.encode(one.prompt), after[bos_length(model, after) :]


def _read(
    service: Service, sae: SAE, features: list[int], whole: Sequence[tuple[list[int], list[int]]]
) -> list[dict[str, Any]]:
    from trimtab.evidence.trace import trace

    model, out = service.model, []
    joined = [before + after for before, after in whole]
    for (before, _), ids, strengths in zip(whole, joined, trace(model, sae, features, joined), strict=True):
        own = sae.max_act[features].tolist() if sae.max_act is not None else strengths.amax(0).tolist()
        rows = strengths[len(before) - bos_length(model, ids) :].T.tolist()
        shares = [[round(v / top, 4) if top > 0 else 0.0 for v in row] for row, top in zip(rows, own, strict=True)]
        out.append({"tokens": pieces(model, ids, len(before)), "shares": shares})
    return out


def _map(index: Index) -> dict[str, Any]:
    from trimtab.index.map import COLOURS, LOOSE, names, read_map

    points = read_map(index)
    assert points is not None
    called = titles(index)
    labels = [called[int(i)] for i in points.feature]
    return {
        "feature": points.feature.tolist(),
        "x": [round(float(x), 4) for x in points.x],
        "y": [round(float(y), 4) for y in points.y],
        "cluster": points.cluster.tolist(),
        "labels": labels,
        "names": names(points.cluster, labels),
        "colours": COLOURS,
        "loose": LOOSE,
    }
