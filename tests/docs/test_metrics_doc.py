"""docs/metrics.md: its tables are what is counted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import yaml
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse

from gateway.app import NEEDS
from gateway.door import GatewayMiddleware
from gateway.model import Need, Reason
from gateway.observe.access import Decision, unlogged
from gateway.observe.metrics import BOUNDS, FAMILIES, MAX_CELLS
from gateway.observe.metrics import TEXT as TEXT_FORMAT
from gateway.wire.problems import UpstreamFailure
from tests.site import Site

TEXT = Path(__file__).parents[2].joinpath("docs/metrics.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the one table under *heading*, without its head."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def test_every_series_is_in_the_table_and_no_other() -> None:
    """Name, type, labels and meaning, in the order of the answer."""
    assert rows("Series") == [
        [
            f"`{family.name}`",
            family.kind,
            ", ".join(f"`{label}`" for label in family.labels),
            family.help,
        ]
        for family in FAMILIES
    ]


def test_every_label_is_explained() -> None:
    """And its words, where they are few, are those of the code."""
    said = {label.strip("`"): words for label, words in rows("Labels")}

    assert said.keys() == {label for family in FAMILIES for label in family.labels}
    assert re.findall(r"`(\w+)`", said["decision"]) == list(get_args(Decision))
    assert re.findall(r"`(\w+)`", said["failure"]) == list(map(str, UpstreamFailure))
    assert set(re.findall(r"`(\w+)`:", said["need"])) == set(NEEDS.values())
    assert NEEDS.keys() == set(get_args(Need))


def test_the_page_names_the_bounds_there_are() -> None:
    """Of the histograms, and of how many series there may be."""
    (listed,) = re.findall(r"end at ([^a-z]+) and 10 seconds", " ".join(TEXT.split()))

    assert [float(bound) for bound in listed.split(", ")] == list(BOUNDS[:-1])
    assert BOUNDS[-1] == 10
    assert f"{MAX_CELLS:,} combinations" in TEXT


async def test_the_applications_own_endpoint_answers(tmp_path: Path) -> None:
    """The snippet, in an application that wraps itself."""
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    config = Site(tmp_path).write()
    app = Starlette()
    guarded = GatewayMiddleware(app, config=config, service="orders", log=unlogged)
    names: dict[str, Any] = {
        "guarded": guarded,
        "PlainTextResponse": PlainTextResponse,
    }
    exec(block, names)  # noqa: S102  (our own page)

    answer = await names["metrics"](None)
    await guarded.engine.aclose()

    assert answer.headers["content-type"] == TEXT_FORMAT
    assert b"gateway_config_info" in answer.body


def test_how_processes_are_merged_is_said() -> None:
    """Whatever is not added up is named."""
    said = TEXT.partition("Several processes are added up.")[2].partition("\n\n")[0]

    named = re.findall(r"`(\w+)`", said)
    assert sorted(named) == sorted(
        family.name for family in FAMILIES if family.merge != "sum"
    )


def test_alerts_ask_for_series_that_exist() -> None:
    """Each name in an expression is a family, and each reason one of ours."""
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    (group,) = yaml.safe_load(block)["groups"]
    names = {family.name for family in FAMILIES}

    for rule in group["rules"]:
        expression = rule["expr"]
        used = set(re.findall(r"\b(?:gateway|http|process)_\w+", expression))
        assert used
        assert {name.removesuffix("_count") for name in used} <= names, rule["alert"]
        for reason in re.findall(r'reason="([^"]+)"', expression):
            assert reason == "bug" or Reason(reason)
