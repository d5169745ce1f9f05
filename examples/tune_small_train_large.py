"""Tune a model small, plan for 8 times the width and 4 times the depth, train, and compare.

    python examples/tune_small_train_large.py examples/transformer.py            minutes
    python examples/tune_small_train_large.py examples/transformer.py --small    seconds

    tuned           the best of some learning rates at the base, by the loss on text held out
    planned         the large model at the numbers of the plan from there
    untransferred   the large model as its code has it, at the rate that was the best at the base

With --out FOLDER it writes the losses and a figure there.
"""

import argparse
import json
import math
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch.nn.functional import cross_entropy

from empirical import ModelPlan, plan
from empirical.trace.model_file import module_of_file

WIDER, DEEPER, HELD_OUT = 8, 4, 8


def loss_of(model, batch):
    inputs, targets = batch
    return cross_entropy(model(inputs).flatten(0, -2), targets.flatten())


def train(example, sizes, seed, steps, rate, numbers=None):
    """The loss held out before training and after every tenth of it."""
    torch.manual_seed(seed)
    model = example.build(**sizes)
    if hasattr(example, "prepare"):
        example.prepare(model, sizes, steps)
    if numbers is None:
        optimizer = example.optimizer(model)
        for group in optimizer.param_groups:
            group["lr"] = rate
    else:
        numbers.apply_(model, seed)
        if numbers.changed:
            numbers.wrap(model)
        optimizer = example.optimizer(model, numbers.param_groups(model))
    every = max(1, steps // 10)
    curve = []
    for step in range(steps + 1):
        if step % every == 0:
            with torch.no_grad():
                losses = [float(loss_of(model, example.batch(i))) for i in range(HELD_OUT)]
            curve.append(fmean(losses))
        if step < steps and math.isfinite(curve[-1]):
            optimizer.zero_grad()
            loss_of(model, example.batch(HELD_OUT + 2**20 * seed + step)).backward()
            optimizer.step()
    return curve


def planned(example, base, rate):
    """The plan, with the factors of the code that it lists changed."""
    large = {"width": WIDER * base["width"], "depth": DEEPER * base["depth"]}
    tuned = {"lr": rate, **example.TUNED}
    return plan(
        example.build, example.batch, example.RECIPE, base, large, tuned, change_code=True
    )  # fmt: skip


def study(example, base, steps, rates, seeds):
    """Curves by setting and seed, the rate that is the best at the base, and the plan."""
    tuning = {r: [train(example, base, s, steps, 2.0**r) for s in range(seeds)] for r in rates}
    best = min(rates, key=lambda r: fmean(worst(curve[-1]) for curve in tuning[r]))
    numbers = planned(example, base, 2.0**best)
    large = dict(numbers.at)
    curves = {
        "tuned": tuning[best],
        "planned": [train(example, large, s, steps, None, numbers) for s in range(seeds)],
        "untransferred": [train(example, large, s, steps, 2.0**best) for s in range(seeds)],
    }
    return best, numbers, curves, {r: [c[-1] for c in one] for r, one in tuning.items()}


def worst(loss):
    return loss if math.isfinite(loss) else 1e9


def told(best, numbers: ModelPlan, curves):
    """Lines of a table."""
    sizes = {"tuned": numbers.base}
    yield f"recipe {numbers.recipe}, best rate at the base 2^{best:g}"
    for name, several in curves.items():
        last = [curve[-1] for curve in several]
        at = ", ".join(f"{k} {x}" for k, x in sizes.get(name, numbers.at).items())
        spread = f" +- {stdev(last):.3f}" if len(last) > 1 else ""
        yield f"{name:14} {at:20} loss {fmean(last):.3f}{spread}"


def draw(path, curves, steps, title):
    """Loss against step, by setting; a line for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for color, (name, several) in zip(("0.5", "C0", "C3"), curves.items(), strict=True):
        for k, curve in enumerate(several):
            at = [i * max(1, steps // 10) for i in range(len(curve))]
            axes.plot(at, curve, color=color, label=name if k == 0 else None)
    axes.set(xlabel="step", ylabel="loss held out", title=title)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, help="transformer.py, resnet.py, lora.py of examples/")
    parser.add_argument("--small", action="store_true", help="at a size of seconds")
    parser.add_argument("--out", type=Path, help="folder for losses and a figure")
    given = parser.parse_args(words)
    example = module_of_file(given.model)
    size = example.SMALL if given.small else example.DESK
    best, numbers, curves, tuning = study(example, **size)
    print("\n".join(told(best, numbers, curves)))
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        found = {"log2_rate": best, "tuning": tuning, "curves": curves, "plan": numbers.as_json()}
        (given.out / f"{given.model.stem}.json").write_text(json.dumps(found, indent=1))
        title = f"{given.model.stem}, {WIDER} times wider and {DEEPER} times deeper"
        draw(given.out / f"{given.model.stem}.png", curves, size["steps"], title)
    return best, numbers, curves


if __name__ == "__main__":
    main()
