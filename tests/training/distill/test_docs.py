"""What the pages say: every setting is there, and configurations that they show can be read."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from training.distill.config import DistillConfig, read_config

PAGES = Path(__file__).parents[3] / "docs" / "distill"


def names(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        parts = (field.annotation, *getattr(field.annotation, "__args__", ()))
        inner = next((p for p in parts if isinstance(p, type) and issubclass(p, BaseModel)), None)
        found += names(inner, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return found


def test_every_setting_is_on_a_page() -> None:
    # A row of a table names a section once: `features.weight`, `log_norm`.
    told = set()
    for page in PAGES.glob("*.md"):
        for line in page.read_text().splitlines():
            section = ""
            for name in re.findall(r"`([a-z][a-z0-9_.]*)`", line):
                section = name.rpartition(".")[0] or section
                told.add(name if "." in name or not section else f"{section}.{name}")
    assert [name for name in names(DistillConfig) if name not in told] == []


@pytest.mark.parametrize(("page", "method"), [("README.md", "kd"), ("through-time.md", "through-time")])
def test_configurations_on_a_page_can_be_read(page: str, method: str, tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```$", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        file = tmp_path / "config.toml"
        file.write_text(block)
        assert read_config(file, method).out


def test_links_lead_somewhere() -> None:
    for page in PAGES.glob("*.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (PAGES / link).exists(), f"{page.name}: {link}"
