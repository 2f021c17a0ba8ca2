"""The embedded engine over HTTP, as a process."""

import asyncio
import json

import aiohttp
import openai
import pytest

CHAT = {"model": "student", "messages": [{"role": "user", "content": "Anna has 12 apples."}], "temperature": 0}
TEXT = {"model": "student", "prompt": "Anna has", "temperature": 0}


async def post(url: str, body, path: str = "/chat/completions") -> tuple[int, dict]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with aiohttp.ClientSession() as session, session.post(url + path, data=data) as response:
        return response.status, await response.json()


async def stream(url: str, body: dict, path: str = "/chat/completions") -> list[dict]:
    async with aiohttp.ClientSession() as session, session.post(url + path, json={**body, "stream": True}) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        lines = (await response.text()).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def joined(chunks: list[dict], choice: int = 0) -> str:
    found = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice]
    return "".join(c["delta"].get("content", "") if "delta" in c else c["text"] for c in found)


async def load(url: str) -> dict:
    async with aiohttp.ClientSession() as session, session.get(url.removesuffix("/v1") + "/load") as response:
        return await response.json()


async def test_the_openai_sdk_talks_to_it(embedded_url):
    async with openai.AsyncOpenAI(base_url=embedded_url, api_key="none") as client:
        assert [model.id async for model in client.models.list()] == ["student", "tiny"]
        whole = await client.chat.completions.create(**CHAT, max_tokens=12, logprobs=True, top_logprobs=2)
        choice = whole.choices[0]
        assert choice.finish_reason == "length"
        assert len(choice.logprobs.content) == 12
        for entry in choice.logprobs.content:
            assert entry.top_logprobs[0].logprob >= entry.top_logprobs[1].logprob
            # Greedy: the chosen one is the likeliest.
            assert (entry.token, entry.logprob) == (entry.top_logprobs[0].token, entry.top_logprobs[0].logprob)
        assert whole.usage.completion_tokens == 12
        text = ""
        options = {"include_usage": True}
        chunks = await client.chat.completions.create(**CHAT, max_tokens=12, stream=True, stream_options=options)
        async for chunk in chunks:
            text += chunk.choices[0].delta.content if chunk.choices else ""
        assert text == choice.message.content
        assert chunk.usage == whole.usage
        old = await client.completions.create(**TEXT, max_tokens=4, logprobs=3)
        assert len(old.choices[0].logprobs.token_logprobs) == 4
        with pytest.raises(openai.NotFoundError, match="The model `gpt` does not exist"):
            await client.chat.completions.create(**{**CHAT, "model": "gpt"})


async def test_batched_greedy_answers_equal_those_of_each_alone(embedded_url, tiny_model):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    prompts = [tokenizer.encode("Anna has 12 apples and gives 5 to Ben. " * n + "x" * n) for n in range(1, 13)]
    with torch.inference_mode():
        expected = [
            model.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False)[0, len(prompt) :].tolist()
            for prompt in prompts
        ]

    async def ask(prompt: list[int]) -> list[int]:
        body = {"prompt": prompt, "temperature": 0, "max_tokens": 20, "return_token_ids": True}
        return (await post(embedded_url, body, "/completions"))[1]["choices"][0]["token_ids"]

    assert await asyncio.gather(*map(ask, prompts)) == expected


async def test_a_stream_says_the_same_as_the_whole_with_usage_in_every_chunk(embedded_url):
    body = {**CHAT, "max_tokens": 10, "n": 2, "seed": 5, "temperature": 1, "logprobs": True, "return_token_ids": True}
    _, whole = await post(embedded_url, body)
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = await stream(embedded_url, {**body, "stream_options": options})
    for choice in whole["choices"]:
        own = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert joined(chunks, choice["index"]) == choice["message"]["content"]
        assert [i for c in own[1:] for i in c["token_ids"]] == choice["token_ids"]
        assert [e for c in own[1:] for e in c["logprobs"]["content"]] == choice["logprobs"]["content"]
        assert own[-1]["finish_reason"] == choice["finish_reason"]
    used = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert used == sorted(used)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert whole["choices"][0]["message"]["content"] != whole["choices"][1]["message"]["content"]


async def test_a_stream_without_usage_asked_for_has_none(embedded_url):
    chunks = await stream(embedded_url, {**CHAT, "max_tokens": 3})
    assert not any("usage" in chunk for chunk in chunks)


async def test_a_seed_gives_the_same_text_whatever_runs_beside_it(embedded_url):
    body = {**TEXT, "temperature": 1.0, "seed": 11, "max_tokens": 16}
    _, alone = await post(embedded_url, body, "/completions")
    others = [post(embedded_url, {**TEXT, "temperature": 1, "max_tokens": 40}, "/completions") for _ in range(5)]
    crowded = await asyncio.gather(*others, post(embedded_url, body, "/completions"))
    assert crowded[-1][1]["choices"][0]["text"] == alone["choices"][0]["text"]


async def test_stop_tokens_and_stop_strings(embedded_url):
    body = {**TEXT, "max_tokens": 12, "return_token_ids": True}
    _, free = await post(embedded_url, body, "/completions")
    text, ids = free["choices"][0]["text"], free["choices"][0]["token_ids"]
    _, by_id = await post(embedded_url, {**body, "stop_token_ids": [ids[5]]}, "/completions")
    ended = by_id["choices"][0]
    first = ids.index(ids[5])
    assert (ended["finish_reason"], ended["stop_reason"], ended["token_ids"]) == ("stop", ids[5], ids[: first + 1])
    stop = next(text[i : i + 2] for i in range(2, len(text)) if text[i : i + 2].isascii())
    _, by_text = await post(embedded_url, {**body, "stop": [stop, "never"]}, "/completions")
    ended = by_text["choices"][0]
    assert (ended["finish_reason"], ended["stop_reason"]) == ("stop", stop)
    assert ended["text"] == text[: text.index(stop)]
    assert joined(await stream(embedded_url, {**body, "stop": stop}, "/completions")) == ended["text"]


async def test_an_assistant_text_is_continued(embedded_url):
    _, whole = await post(embedded_url, {**CHAT, "max_tokens": 8, "return_token_ids": True})
    begun = {"role": "assistant", "content": "So"}
    go_on = {"continue_final_message": True, "add_generation_prompt": False}
    body = {**CHAT, "messages": [*CHAT["messages"], begun], **go_on, "max_tokens": 1, "return_token_ids": True}
    _, continued = await post(embedded_url, body)
    # The template's opening, the given text, and no end marker after it.
    assert continued["prompt_token_ids"][: len(whole["prompt_token_ids"])] == whole["prompt_token_ids"]
    assert 4 not in continued["prompt_token_ids"][len(whole["prompt_token_ids"]) :]
    assert len(continued["prompt_token_ids"]) > len(whole["prompt_token_ids"])


async def test_every_shape_of_prompt(embedded_url):
    cases = {"text": "Anna", "texts": ["Anna", "Ben"], "ids": [50, 60], "lists of ids": [[50, 60], [70]]}
    counts = {}
    for name, prompt in cases.items():
        status, answer = await post(embedded_url, {"prompt": prompt, "max_tokens": 2, "n": 2}, "/completions")
        assert status == 200, answer
        counts[name] = ([c["index"] for c in answer["choices"]], answer["usage"]["completion_tokens"])
    two, four = ([0, 1], 4), ([0, 1, 2, 3], 8)
    assert counts == {"text": two, "texts": four, "ids": two, "lists of ids": four}


async def test_parts_of_text_are_one_text(embedded_url):
    parts = [{"type": "text", "text": "Anna has "}, {"type": "text", "text": "12 apples."}]
    body = {**CHAT, "messages": [{"role": "user", "content": parts}], "max_tokens": 5}
    assert (await post(embedded_url, body))[1]["choices"] == (await post(embedded_url, {**CHAT, "max_tokens": 5}))[1][
        "choices"
    ]


async def test_a_client_that_goes_away_frees_its_rows(embedded_url):
    async def leave(streamed: bool) -> None:
        body = {**TEXT, "max_tokens": 250, "n": 8, "ignore_eos": True, "stream": streamed}

        async def read(session: aiohttp.ClientSession) -> None:
            async with session.post(embedded_url + "/completions", json=body) as response:
                await response.read()

        async with aiohttp.ClientSession() as session:
            request = asyncio.ensure_future(read(session))
            while (await load(embedded_url))["running"] == 0:
                pass
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)

    for streamed in (False, True):
        await leave(streamed)
        # 8 rows x 250 tokens would take longer than this.
        for _ in range(20):
            if await load(embedded_url) == {"running": 0, "waiting": 0, "max_batch": 8}:
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail("the rows are still running")


async def test_tokenize(embedded_url):
    base = embedded_url.removesuffix("/v1")
    status, answer = await post(base, {"prompt": "Anna has 12 apples"}, "/tokenize")
    assert (status, answer["count"], answer["max_model_len"]) == (200, len(answer["tokens"]), 256)
    _, answer = await post(base, {"messages": CHAT["messages"]}, "/tokenize")
    assert answer["tokens"][:2] == [1, 2]


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "code", "words"),
    [
        ("/chat/completions", b"{", 400, None, None, "the body is not JSON"),
        ("/chat/completions", [], 400, None, None, "must be a JSON object"),
        ("/chat/completions", {}, 400, "messages", None, "messages must be a list"),
        ("/chat/completions", {**CHAT, "model": "x"}, 404, "model", "model_not_found", "does not exist"),
        ("/chat/completions", {"messages": [{"role": "user"}]}, 400, "messages", None, r"messages\[0\].content"),
        ("/chat/completions", {**CHAT, "temperature": "hot"}, 400, "temperature", None, "must be a number"),
        ("/chat/completions", {**CHAT, "temperature": 3}, 400, "temperature", None, "between 0 and 2, not 3"),
        ("/chat/completions", {**CHAT, "max_tokens": 0}, 400, "max_tokens", None, "at least 1"),
        ("/chat/completions", {**CHAT, "n": 1.5}, 400, "n", None, "whole number"),
        ("/chat/completions", {**CHAT, "stream": "yes"}, 400, "stream", None, "true or false"),
        ("/chat/completions", {**CHAT, "stop": [""]}, 400, "stop", None, "none of them empty"),
        ("/chat/completions", {**CHAT, "top_logprobs": 2}, 400, "top_logprobs", None, "needs logprobs"),
        ("/chat/completions", {**CHAT, "tools": [{}]}, 400, "tools", "unsupported_parameter", "does not support tools"),
        ("/chat/completions", {**CHAT, "response_format": {"type": "json_object"}}, 400, "response_format",
         "unsupported_parameter", "only writes text"),
        ("/chat/completions", {**CHAT, "continue_final_message": True, "add_generation_prompt": False}, 400,
         "continue_final_message", None, "last message of the assistant"),
        ("/chat/completions", {**CHAT, "messages": [{"role": "user", "content": "long " * 300}]}, 400, "messages",
         "context_length_exceeded", "maximum context length is 256 tokens"),
        ("/chat/completions", {**CHAT, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400,
         "messages", None, "reads text only"),
        ("/completions", {"prompt": []}, 400, "prompt", None, "prompt must be a text"),
        ("/completions", {"prompt": [1, "a"]}, 400, "prompt", None, "'a' is not a token id below 400"),
        ("/completions", {"prompt": [400]}, 400, "prompt", None, "400 is not a token id below 400"),
        ("/completions", {"prompt": "a", "logit_bias": {"x": 1}}, 400, "logit_bias", None, "not a token id"),
        ("/completions", {"prompt": "a", "echo": True}, 400, "echo", "unsupported_parameter", "does not support echo"),
        ("/nothing", {}, 404, None, "not_found", "no such endpoint"),
    ],
)  # fmt: skip
async def test_bad_requests_get_one_clear_error(embedded_url, path, body, status, param, code, words):
    got, answer = await post(embedded_url, body, path)
    assert got == status
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert (answer["error"]["param"], answer["error"]["code"]) == (param, code)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(answer["error"]["message"])


async def test_a_body_without_end_is_refused(embedded_url):
    async def spaces():
        for _ in range(33):
            yield b" " * (1 << 20)

    async with aiohttp.ClientSession() as session:
        request = session.post(embedded_url + "/completions", data=spaces())
        async with request as response:
            answer = await response.json()
            assert (response.status, answer["error"]["message"]) == (413, "the body is larger than 33,554,432 bytes")
