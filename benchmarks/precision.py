"""Own updates of the whole catalogue, to three decimals, and the controls that must fail.

    python benchmarks/precision.py [RULE]...

Every rule of the catalogue, or the rules that are named, in wide mode: the exponent of what each
layer's own update does, measured against theory with a margin of 0.005. Then the same measurements
against exponents that are wrong by 0.05, and K-FAC with a damping that does not scale.

Own updates are all that is asked (--quantity own), so rules that look at single entries are
measured on a sample of rows, at widths from 8192: there all widths share their draws (a block of
noise is whole), and cotangents of what the batch does not contain, which vanish as M^(-1/2), have
faded. The activation is tanh throughout. Two rules need more:

    kfac_pi    in the input layer the pi split lets the damping fade as M^(-1) beside B: wider
    ekfac      one-hot targets leave eigenvalues of B that coincide as f -> 0, and with them a basis
               that no width settles: sizes fluctuate alike at all widths. On drawn targets, of
               which no two eigenvalues coincide, they do not
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from derivations.catalogue import catalogue, find
from empirical.wide.method import Path as Way
from empirical.wide.method import path_of

SETTINGS = {
    Way.CORE: ("--widths", ",".join(str(4**k) for k in range(5, 11)), "--seeds", "16"),
    Way.SAMPLE: ("--widths", "8192,32768,131072,524288", "--seeds", "16"),
}
WIDER = ("--widths", ",".join(str(4**k) for k in range(6, 12)), "--seeds", "16")
DRAWN = "drawn.npz"
INSTEAD = {"kfac_pi": WIDER, "ekfac": (*WIDER, "--data", DRAWN)}
COMMON = ("--mode", "wide", "--quantity", "own", "--activation", "tanh", "--format", "json")


def verify(*words: str) -> dict[str, Any]:
    """What `scaling verify` reports."""
    command = [sys.executable, "-m", "scaling.cli", "verify", *words, *COMMON]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def own(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The checks of own updates."""
    return [check for check in report["checks"] if check["quantity"] == "own"]


def planted(report: dict[str, Any]) -> list[str]:
    """Options that plant exponents 0.05 beside the predicted ones."""
    wrong = [f"own_{c['layer']}={c['predicted']} + 1/20" for c in own(report)]
    return [word for text in wrong for word in ("--expect", text)]


def drawn(folder: Path) -> None:
    """Eight samples whose inputs and targets are normal."""
    normal = np.random.default_rng(0).normal
    np.savez(folder / DRAWN, inputs=normal(size=(8, 64)), targets=normal(size=(8, 10)))


def main() -> None:
    """Measure and print."""
    names = sys.argv[1:] or list(catalogue())
    print(f"`{' '.join(COMMON[:6])} --margin 0.005`: exponent of own updates [interval], verdict;")
    print("and how many of the three are contradicted when 0.05 is added to the prediction.")
    print()
    for path, words in SETTINGS.items():
        print(f"* {path}: `{' '.join(words)}`")
    for rule, words in INSTEAD.items():
        print(f"* {rule}: `{' '.join(words)}`")
    print("\n| rule | input | hidden | output | 0.05 off |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        drawn(Path(folder))
        for name in names:
            way = path_of(find(name).rule, own_only=True)
            assert way in SETTINGS, f"{name} needs M^2 steps, or more"
            how = INSTEAD.get(name, SETTINGS[way])
            words = (name, *how, "--data-root", folder, "--out", str(Path(folder) / name))
            found = verify(*words, "--margin", "0.005")
            cells = [
                f"{c['measured']:+.4f} [{c['low']:+.4f}, {c['high']:+.4f}] {c['verdict']}"
                for c in own(found)
            ]
            wrong = own(verify(*words, "--margin", "0.02", *planted(found)))
            contradicted = sum(c["verdict"] == "contradict" for c in wrong)
            print(f"| {name} | {' | '.join(cells)} | {contradicted} of {len(wrong)} |", flush=True)
        if "kfac" not in names:
            return
        constant = verify("kfac", "--set", "d_rho_B=0", *SETTINGS[Way.CORE])
    notes = {c["note"] for c in constant["checks"] if c["verdict"] == "crossover"}
    print("\n`--set d_rho_B=0` on kfac: verdict", constant["verdict"], "\n")
    for note in sorted(notes):
        print(f"* {note}")


if __name__ == "__main__":
    main()
