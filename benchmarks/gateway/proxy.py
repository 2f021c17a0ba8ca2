"""A proxy that does nothing: the least a Python gateway can cost, and so what ours is measured against.

Raw ASGI under uvicorn with uvloop and httptools, aiohttp's client with kept-alive connections, bytes passed through
untouched both ways. It reads nothing, decides nothing, counts nothing and writes nothing down.

    python -m benchmarks.gateway.proxy --upstream http://127.0.0.1:9000 --port 9100
"""

import argparse
from typing import Any

import aiohttp
import uvicorn

CHUNK_BYTES = 64 * 1024


class Proxy:
    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        return await self._pass_on(scope, receive, send)

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
        )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._session.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _pass_on(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert self._session is not None
        parts = []
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        async with self._session.request(
            scope["method"],
            self._upstream + scope["path"],
            data=b"".join(parts) or None,
            headers={"content-type": "application/json"},
        ) as response:
            content_type = response.headers.get("content-type", "application/json").encode()
            headers = [(b"content-type", content_type)]
            if response.content_length is not None:
                headers.append((b"content-length", str(response.content_length).encode()))
                body = await response.read()
                await send({"type": "http.response.start", "status": response.status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
                return
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            async for chunk in response.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    uvicorn.run(
        Proxy(arguments.upstream),
        host="127.0.0.1",
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
