"""Claims as objects: what makes a verdict, what is shown, what is kept, what is trained."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from derivations.catalogue import find
from empirical.claims import claim_report, figures, registry
from empirical.claims import environment as sizes_of
from empirical.claims.claim import Claim, Evidence, Finding, Result
from empirical.claims.environment import Environment, Tier
from empirical.claims.families import FAMILIES, RATES, FamilyRow, families
from empirical.claims.figures import Curve, Figure
from empirical.claims.rate_transfer import one_step
from empirical.fit.verdict import Verdict
from empirical.measure.machine import blas_threads
from empirical.measure.store import VERSION
from empirical.transfer.sweep import Sweep, SweptAxis, SweptParametrization, train
from scaling.report.tables import Format, render
from scaling.sizes.errors import InvalidInput

CLAIMS = registry.claims()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with blas_threads(1):
        yield


# --- the claims ---------------------------------------------------------------------------------
# paper_checks.ipynb runs all of them at tier ci and asserts their verdicts: test_notebook.py.


def test_there_are_fourteen_groups_and_every_claim_has_a_statement_and_a_reference() -> None:
    assert [group.number for group in registry.groups()] == list(range(1, 15))
    assert len({claim.title for claim in CLAIMS.values()}) == len(CLAIMS)
    for claim in CLAIMS.values():
        assert claim.statement.endswith(".") and "arXiv" in claim.reference, claim.id


# --- finding them -------------------------------------------------------------------------------


def test_a_number_stands_for_its_group_and_an_id_for_one_claim() -> None:
    assert [c.id for c in registry.find(["4", "1a", "4b"])] == ["4a", "4b", "4c", "4d", "1a"]


@pytest.mark.parametrize(
    ("name", "near"), [("4z", "4"), ("15", "did you mean"), ("9A ", None), ("xyz", "")]
)
def test_an_unknown_id_names_the_nearest(name: str, near: str | None) -> None:
    if near is None:
        assert [c.id for c in registry.find([name])] == ["9a"]
        return
    with pytest.raises(InvalidInput, match="claim") as caught:
        registry.find([name])
    assert near in caught.value.do_this


# --- verdicts -----------------------------------------------------------------------------------


def finding(verdict: Verdict, subject: str = "x") -> Finding:
    return Finding(subject, "0", "+1.000", "[+0.900, +1.100]", verdict)


def claim(check: list[Verdict], control: list[Verdict]) -> Claim:
    def evidence(verdicts: list[Verdict]) -> Callable[[Environment], Evidence]:
        figure = Figure("f/1", "t", "x", "y", (Curve("c", (1.0, 2.0), (3.0, 4.0)),))
        found = Evidence(tuple(map(finding, verdicts)), figures=(figure,))
        return lambda _: found

    return Claim("1a", "a <title>", "A statement.", "arXiv 0", evidence(check), evidence(control))


def run(check: list[Verdict], control: list[Verdict]) -> Result:
    return claim(check, control).run(Environment())


def test_the_gravest_finding_decides() -> None:
    agree, contradict = Verdict.agree, Verdict.contradict
    assert run([agree, agree], [contradict]).verdict is agree
    found = run([agree, contradict], [contradict])
    assert found.verdict is contradict
    assert "predicted 0, measured +1.000 [+0.900, +1.100]" in found.reason


def test_a_control_that_is_agreed_to_voids_the_check() -> None:
    found = run([Verdict.agree], [Verdict.contradict, Verdict.agree])
    assert found.verdict is Verdict.inconclusive
    assert "control agreed" in found.reason and found.control_text == "1 of 2 refused"


@pytest.mark.parametrize("style", [f for f in Format if f is not Format.JSON])
def test_every_format_shows_every_claim_and_the_reasons(style: Format) -> None:
    results = [run([Verdict.contradict], [Verdict.contradict])]
    shown = claim_report.render(results, "tier ci", style, full=True)
    assert "contradict" in shown and "1a" in shown and "tier ci" in shown


def test_notebooks_show_statement_evidence_and_control(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run([Verdict.agree], [Verdict.contradict])
    html, markdown = found._repr_html_(), found._repr_markdown_()
    assert "a &lt;title&gt;" in html and html.count("<table>") == 2
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    found._ipython_display_()
    assert [sorted(x)[0] for x in shown] == ["text/html", "image/png"]
    assert shown[1]["image/png"].startswith(b"\x89PNG")
    assert "A statement." in markdown and "| x |" in markdown
    assert "<table>" in found.evidence._repr_html_() and "| x |" in found.evidence._repr_markdown_()
    assert "1a" in found.claim._repr_html_() and "**1a." in found.claim._repr_markdown_()


# --- families -----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", FAMILIES, ids=lambda row: row.name)
def test_every_family_is_trained_from_weights_that_are_drawn(row: FamilyRow) -> None:
    family = row.make(Environment(tier=Tier.desk))
    first = float(row.rates["kfac"][0])
    values = (first, first + 1, first + 2)
    small = Sweep(family, find("kfac"), SweptParametrization.mup, (8, 16, 32), values, 2, 3)
    found = train(small, 16, 0)
    assert all(loss < found["start"][0] for loss in found["losses"]), found


def test_tiers_train_what_they_can_afford() -> None:
    def names(tier: Tier, rule: str, axis: SweptAxis = SweptAxis.rate) -> list[str]:
        return [row.name.split(",")[0] for row in families(Environment(tier=tier), rule, axis)]

    assert names(Tier.ci, "kfac") == ["MLP"]
    assert names(Tier.desk, "kfac") == ["MLP", "MLP", "CBOW", "CNN", "ResNet"]
    assert names(Tier.desk, "shampoo") == ["MLP", "MLP", "CBOW"]
    assert names(Tier.desk, "kfac", SweptAxis.damping) == ["MLP", "MLP"]
    for rule in RATES:
        assert names(Tier.paper, rule) == ["MLP", "MLP", "CBOW", "CNN", "ResNet"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("kfac", " ~ M^(0), no drift"), ("shampoo", " ~ M^(1/2), a drift"), ("sgd", " not predicted")],
)
def test_a_step_of_sp_moves_the_output_by_the_inverse_of_its_lazy_rate(
    rule: str, expected: str
) -> None:
    assert f"df{expected}" in one_step(rule)


# --- cells and files ----------------------------------------------------------------------------


def test_finished_cells_are_not_repeated_and_a_run_is_taken_up(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    def measure(width: int, seed: int) -> dict[str, Any]:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append((width, seed))
        return {"size": width + seed}

    with pytest.raises(KeyboardInterrupt):
        Environment(folder=tmp_path).cells({"a": 1}, [8, 16], 2, measure, "x")
    assert calls == [(8, 0), (8, 1), (16, 0)]
    calls[:] = []
    rows = Environment(folder=tmp_path).cells({"a": 1}, [8, 16], 2, measure, "x")
    assert calls == [(16, 1)]
    assert [[r["size"] for r in row] for row in rows] == [[8, 9], [16, 17]]
    Environment(folder=tmp_path).cells({"a": 2}, [8], 1, measure, "x")
    Environment(folder=tmp_path, seed=1).cells({"a": 1}, [8], 1, measure, "x")
    assert calls == [(16, 1), (8, 0), (8, 65536)]


def test_cells_of_another_version_are_refused_before_anything_is_run(tmp_path: Path) -> None:
    Environment(folder=tmp_path).cells({"a": 1}, [8], 1, lambda w, s: {"x": 1}, "x")
    path = tmp_path / "cells.jsonl"
    path.write_text(path.read_text().replace(f'"version": {VERSION}', f'"version": {VERSION - 1}'))
    with pytest.raises(InvalidInput, match=rf"format {VERSION - 1} (.|\n)*not mixed"):
        Environment(folder=tmp_path).require()


def test_a_claim_run_again_measures_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    few = (64, 128, 256)
    small = sizes_of.TierSizes(few, 2, few, few, 0.1, (8, 16, 32), 1, 2, 2)
    monkeypatch.setitem(sizes_of.SIZES, Tier.ci, small)
    chosen = registry.find(["1c", "9b"])
    first = [c.run(Environment(folder=tmp_path)) for c in chosen]

    def nothing(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("empirical.verify.campaign.measure_mean", nothing)
    monkeypatch.setattr("empirical.claims.families.train", nothing)
    again = [c.run(Environment(folder=tmp_path)) for c in chosen]
    assert [r.evidence for r in again] == [r.evidence for r in first]
    claim_report.write(again, "tiny", tmp_path)
    payload = json.loads((tmp_path / "claims.json").read_text())
    assert [c["id"] for c in payload["claims"]] == ["1c", "9b"]
    assert payload["claims"][0]["control"]["refused"] is True
    assert "9b" in (tmp_path / "claims.md").read_text()


def test_figures_are_drawn_again_from_what_is_stored(tmp_path: Path) -> None:
    bars = Curve("with bars", (64.0, 128.0), (1.0, 2.0), (0.5, 1.5), (1.5, 2.5))
    one = Figure("a b", "title", "width M", "y", (bars, Curve("plain", (64.0, 128.0), (3.0, 0.0))))
    figures.write([one], tmp_path)
    figures.write([Figure("other", "t", "x", "y", (bars,), False)], tmp_path)
    for path in tmp_path.glob("*.png"):
        path.unlink()
    assert [p.name for p in figures.redraw(tmp_path)] == ["a_b.png", "other.png"]
    assert (tmp_path / "a_b.png").stat().st_size > 5000
    turned = dataclasses.replace(one, turn=1)
    assert figures.draw(turned) != figures.draw(one)  # the second curve in the first one's colour
    for figure in (one, turned):
        assert figures.from_json(json.loads(json.dumps(figures.as_json(figure)))) == figure


@pytest.mark.parametrize("damage", ["", "[{}]", "null"])
def test_a_folder_without_figures_is_refused(tmp_path: Path, damage: str) -> None:
    if damage:
        (tmp_path / figures.FIGURES).write_text(damage)
    with pytest.raises(InvalidInput, match="figures"):
        figures.redraw(tmp_path)


def test_the_listing_names_every_claim() -> None:
    shown = render(claim_report.listing(tuple(CLAIMS.values())), Format.TEXT)
    assert all(f"\n{name}" in shown for name in CLAIMS)
