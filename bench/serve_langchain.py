"""LangChain's OpenAI classes against a server: do they work unchanged, and do they get what the server writes?

    python -m venv build/langchain && build/langchain/bin/pip install langchain-openai
    build/langchain/bin/python bench/serve_langchain.py http://127.0.0.1:8000 [--feature 11330]

In an environment of its own: langchain-openai brings 13 packages that nothing else here needs, and LiteLLM, the other
usual way, holds openai and huggingface-hub back at older versions.
"""

from __future__ import annotations

import argparse
import asyncio
from importlib.metadata import version
from typing import Any

import httpx
from langchain_openai import ChatOpenAI, OpenAI

PROMPT = "the cat saw"


def plain(url: str, path: str, body: dict[str, Any]) -> Any:
    """The first choice of an answer."""
    response = httpx.post(f"{url}/v1{path}", json=body, timeout=60)
    response.raise_for_status()
    return response.json()["choices"][0]


def completions(url: str, model: str, feature: int) -> None:
    """invoke, stream, ainvoke and batch of the class for completions."""
    steering = {"features": [{"feature": feature, "strength": 0.5}]}
    ask = {"model": model, "max_tokens": 12, "seed": 3, "temperature": 1.0}
    expected = plain(url, "/completions", ask | {"prompt": PROMPT, "steering": steering})["text"]
    client = OpenAI(base_url=f"{url}/v1", api_key="none", extra_body={"steering": steering}, **ask)
    got = {
        "invoke": client.invoke(PROMPT),
        "stream": "".join(client.stream(PROMPT)),
        "ainvoke": asyncio.run(client.ainvoke(PROMPT)),
        "batch": client.batch([PROMPT])[0],
    }
    for name, text in got.items():
        assert text == expected, (name, text, expected)
        print(f"completions {name}: the same text", flush=True)


def chat(url: str, model: str, feature: int) -> None:
    """The same for chat, where the model has a template."""
    steering = {"features": [{"feature": feature, "strength": 0.5}]}
    ask = {"model": model, "max_tokens": 12, "seed": 3, "temperature": 1.0}
    messages = [{"role": "system", "content": "a dog"}, {"role": "user", "content": PROMPT}]
    try:
        answer = plain(url, "/chat/completions", ask | {"messages": messages, "steering": steering})
    except httpx.HTTPStatusError as error:
        print("chat:", error.response.json()["error"]["message"])
        return
    client = ChatOpenAI(base_url=f"{url}/v1", api_key="none", extra_body={"steering": steering}, **ask)
    said = [("system", "a dog"), ("human", PROMPT)]
    got = {
        "invoke": client.invoke(said).text,
        "stream": "".join(chunk.text for chunk in client.stream(said)),
        "ainvoke": asyncio.run(client.ainvoke(said)).text,
    }
    for name, text in got.items():
        assert text == answer["message"]["content"], (name, text, answer)
        print(f"chat {name}: the same text", flush=True)


def main() -> None:
    """Both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--feature", type=int, default=11330)
    args = parser.parse_args()
    model = httpx.get(f"{args.url}/v1/models", timeout=60).json()["data"][0]["id"]
    print("langchain-openai", version("langchain-openai"), "with", model)
    completions(args.url, model, args.feature)
    chat(args.url, model, args.feature)


if __name__ == "__main__":
    main()
