"""The atlas: its page is what its records say, and every part of theory and measurement is told.

The records were measured with the libraries (`make atlas`); here nothing is measured but a class of
torch, and only where a record is planted.
"""

import json
from typing import Any

import pytest

from empirical.black_box import atlas
from empirical.black_box.atlas import FOLDER, exponents, judged, keyed, page
from empirical.black_box.atlas_rows import ROWS, AtlasRow
from scaling.sizes.errors import NotCovered

RECORDS = json.loads((FOLDER / "atlas.json").read_text("utf-8"))
SGD = RECORDS["torch.optim:SGD"]


def test_the_page_is_made_of_the_records() -> None:
    assert page(RECORDS) == (FOLDER / "atlas.md").read_text("utf-8")
    assert {key for key, _ in keyed()} == set(RECORDS)


def test_sixty_optimizers_are_measured_and_most_have_the_exponents_of_their_rules() -> None:
    places = {row.place for key, row in keyed() if "layers" in RECORDS[key]}
    rows = [judged(row, RECORDS[key]) for key, row in keyed() if "layers" in RECORDS[key]]
    assert len(places) >= 60
    assert sum(x.verdict == "agrees" for x in rows) >= 0.85 * len(rows)
    assert all(x.row.remark for x in rows if x.verdict != "agrees")
    assert len({key for key, _ in keyed()}) == len(ROWS)


@pytest.mark.parametrize("role", ["input", "hidden", "output"])
def test_a_planted_half_power_parts(role: str) -> None:
    shifted: dict[str, Any] = {**SGD, "layers": {**SGD["layers"]}}
    one = shifted["layers"][role]
    by = {k: one[k] + 0.5 for k in ("measured", "low", "high")}
    shifted["layers"][role] = {**one, **by}
    row = AtlasRow("torch.optim:SGD", "sgd")
    assert judged(row, SGD).verdict == "agrees" and judged(row, shifted).verdict == "parts"
    assert "not explained" in page({**RECORDS, "torch.optim:SGD": shifted})


def test_constants_stay_what_they_are() -> None:
    row = AtlasRow("torch.optim:Adam", "adam_debiased", {}, ("eps",))
    assert exponents(row, False) == ("0", "1", "1")
    assert exponents(row, True) == ("-1", "0", "1")
    with pytest.raises(NotCovered):
        exponents(AtlasRow("", "G/(G*G)"), False)


def test_a_run_measures_what_is_missing_and_keeps_what_it_cannot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    rows = (AtlasRow("torch.optim:SGD", "sgd"), AtlasRow("nowhere:Gone", "sgd"))
    monkeypatch.setattr(atlas, "ROWS", rows)
    monkeypatch.setattr(atlas, "FOLDER", tmp_path)
    monkeypatch.setattr(atlas, "WIDTHS", (16, 32, 64))
    monkeypatch.setattr(atlas, "SEEDS", 1)
    atlas.main()
    first = (tmp_path / "atlas.json").read_text("utf-8")
    assert set(json.loads(first)) == {"torch.optim:SGD"}
    kept = {"torch.optim:SGD": SGD, "nowhere:Gone": SGD}
    (tmp_path / "atlas.json").write_text(json.dumps(kept), "utf-8")
    atlas.main(["nowhere"])
    assert json.loads((tmp_path / "atlas.json").read_text("utf-8")) == kept
