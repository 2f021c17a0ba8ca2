"""What README and docs tell people to type works: each page's blocks run in order against a gateway of its own.

- `bash` blocks run as they stand, but for three things: the gateway's address is the running one's, `make` says what it
  would do, and `tw serve` checks and starts nothing. A `text` block right after one is what it prints.
- `python` blocks run as programs. `toml` blocks are read as settings, `json` blocks as JSON.
- A fence without a language is a drawing or a transcript and is left alone.
"""

import asyncio
import itertools
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.settings import load_settings
from tests.serving import RunningGateway, gateway
from tests.upstreams import scripted_pair

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "README.ja.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class Block:
    language: str
    text: str
    line: int
    prints: str | None
    """What a `text` block right after it says that it prints."""


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = list(FENCE.finditer(text))
    after = {a.start(): b for a, b in itertools.pairwise(found) if not text[a.end() : b.start()].strip()}
    return [
        Block(
            language=fence[1],
            text=fence[2],
            line=text.count("\n", 0, fence.start()) + 1,
            prints=after[fence.start()][2] if fence.start() in after and after[fence.start()][1] == "text" else None,
        )
        for fence in found
    ]


PAGES_THAT_RUN = [page for page in PAGES if any(block.language in ("bash", "python") for block in blocks(page))]


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[RunningGateway]:
    async with scripted_pair() as pair, gateway(tmp_path, pair.student.url, pair.teacher.url) as started:
        yield started


async def run(command: list[str], folder: Path, env: dict[str, str]) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def harmless(script: str) -> str:
    """The script, with what would install or start something said and not done."""
    script = re.sub(r"^make ", f"make -n -C {ROOT} ", script, flags=re.MULTILINE)
    return re.sub(r"^(tw serve(?:.*\\\n)*.*)$", r"\1 --dry-run", script, flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES_THAT_RUN, ids=lambda page: page.name)
async def test_what_a_page_says_to_type_works(page: Path, running: RunningGateway, tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TW_", "OPENAI_", "MAKE"))}
    env = {
        **inherited,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "TW_STATE_DIR": str(folder / "state"),
        "TW_ADMIN_KEY": running.admin_key,
    }
    ran = 0
    for block in blocks(page):
        text = block.text.replace(ADDRESS, running.url)
        if block.language == "bash":
            command = ["bash", "-euo", "pipefail", "-c", harmless(text)]
        elif block.language == "python":
            command = [sys.executable, "-c", text]
        else:
            continue
        status, out, err = await run(command, folder, env)
        assert status == 0, f"{page.name}:{block.line} ended with {status}\n{out}{err}"
        if block.prints is not None:
            assert out.rstrip() == block.prints.rstrip(), f"{page.name}:{block.line}"
        ran += 1
    assert ran > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_and_json_on_a_page_can_be_read(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.language == "toml":
            file = tmp_path / "tw.toml"
            file.write_text(block.text)
            assert load_settings(file).port
        elif block.language == "json":
            assert json.loads(block.text) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(FENCE, "", page.read_text())
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"", text):
        link = target[0] or target[1]
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        path = (page.parent / name) if name else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            dead.append(link)
    assert dead == []


def anchors(page: Path) -> set[str]:
    """The anchors that a renderer makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(FENCE, "", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
