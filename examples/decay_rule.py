"""The best weight decay against the batch: the time scale that plans take from the literature.

    python examples/decay_rule.py

arXiv 2405.13698: lr x decay x (samples / batch) stays where the batch grows, the time scale of the
weights as an average over updates, in epochs. With lr x k^(1/2) for AdamW (arXiv 2205.10287) the
decay goes with k^(1/2); with lr x k for SGD it stays. Measured in plain torch on a linear
regression on a few samples with noisy targets, seen again and again, so that decay is of use. Each
of the two is the other one's control.
"""

import torch

from empirical.transfer.transfer_measures import Losses, transfer

BATCHES, DECAYS, SEEDS = (2, 8, 32), tuple(range(-6, 5)), 64
INPUTS, SAMPLES, SEEN, SIGNAL, NOISE = 32, 256, 8192, 0.125, 1.0
RATES = {"adamw": (2.0**-9, 0.5), "sgd": (2.0**-9, 1.0)}  # at the smallest batch; power of k
BETAS, EPS = (0.99, 0.9975), 1e-8  # at the smallest batch


def losses(batch, rule):
    """Loss without noise on other samples, at the end and at the start, by seed and decay."""
    draw = torch.Generator().manual_seed(0)
    truth = torch.randn(SEEDS, 1, INPUTS, generator=draw) * SIGNAL
    x = torch.randn(SEEDS, SAMPLES, INPUTS, generator=draw)
    y = (x * truth).sum(2) + NOISE * torch.randn(SEEDS, SAMPLES, generator=draw)
    w = torch.zeros(SEEDS, len(DECAYS), INPUTS)
    k = batch / BATCHES[0]
    rate, power = RATES[rule]
    rate *= k**power
    betas, eps = [1 - (1 - b) * k for b in BETAS], EPS * k**-0.5
    decays = 2.0 ** torch.tensor(DECAYS, dtype=torch.float32)[None, :, None]

    def held_out():
        return (w - truth).square().sum(2)

    start, moments = held_out(), [torch.zeros_like(w) for _ in BETAS]
    for step in range(1, SEEN // batch + 1):
        chosen = torch.randint(SAMPLES, (SEEDS, batch), generator=draw)
        some = x.take_along_dim(chosen[:, :, None], 1)
        wrong = w @ some.mT - y.take_along_dim(chosen, 1)[:, None]
        update = wrong @ some / batch
        if rule == "adamw":
            for moment, beta, g in zip(moments, betas, (update, update.square()), strict=True):
                moment.lerp_(g, 1 - beta)
            mean, square = (m / (1 - b**step) for m, b in zip(moments, betas, strict=True))
            update = mean / (square.sqrt() + eps)
        w = w - rate * (update + decays * w)
    return held_out(), start


def measured(rule="adamw"):
    """Best decays by batch, and how far they move per doubling of it, with intervals over seeds."""
    found = [losses(batch, rule) for batch in BATCHES]
    table, start = (torch.stack([x[i] for x in found]).double().numpy() for i in range(2))
    return transfer(Losses(BATCHES, tuple(map(float, DECAYS)), table, start[:, :, 0]))


if __name__ == "__main__":
    for rule in RATES:
        found = measured(rule)
        best = ", ".join(f"{b}: {x.value:+.2f}" for b, x in zip(BATCHES, found.best, strict=True))
        print(f"{rule}: log2 of the best decay by batch {best}; {found.drift} per doubling")
        print(
            *(f"  of {x:g}: {found.drift.judge(x, 0.25).name}" for x in (0.0, 0.5, 1.0)), sep="\n"
        )
