"""Adam's best learning rate against the batch: the square root that plans take from the literature.

    python examples/batch_rule.py

arXiv 2205.10287: where the batch is k times as large and as many samples are seen in all, the rate
goes with k^(1/2), 1 - beta with k and eps with k^(-1/2), in the regime where noise leads. Measured
in plain torch on a regression with noisy targets; `beta_too=False` leaves the averages as they are.
"""

import torch

from empirical.transfer.transfer_measures import Losses, transfer

BATCHES, RATES, SEEDS, SAMPLES = (4, 16, 64), tuple(range(-11, -1)), 32, 4096
WIDTH, INPUTS, NOISE = 16, 8, 1.0
BETAS, EPS = (0.99, 0.9975), 1e-8  # at the smallest batch: 1 - beta is 0.16 and 0.04 at the largest


def nets(draw):
    """Two layers for every seed and rate: the rates of one seed begin alike."""
    shapes = ((INPUTS, WIDTH), (WIDTH, 1))
    both = [torch.randn(SEEDS, 1, *s, generator=draw) / s[0] ** 0.5 for s in shapes]
    return [w.repeat(1, len(RATES), 1, 1).requires_grad_() for w in both]


def truth(x, teacher):
    return (x @ teacher[0]).tanh() @ teacher[1]


def losses(batch, beta_too=True):
    """Loss without noise at the end, and at the start, by seed and rate."""
    draw = torch.Generator().manual_seed(0)
    weights = nets(draw)
    teacher = [torch.randn(SEEDS, 1, *w.shape[2:], generator=draw) / 2 for w in weights]
    k = batch / BATCHES[0] if beta_too else 1
    betas, eps = [1 - (1 - b) * k for b in BETAS], EPS * (k**-0.5)
    rates = 2.0 ** torch.tensor(RATES, dtype=torch.float32)[None, :, None, None]
    test = torch.randn(SEEDS, 1, 512, INPUTS, generator=draw)

    def held_out():
        wrong = (test @ weights[0]).tanh() @ weights[1] - truth(test, teacher)
        return wrong.square().mean((2, 3)).detach()

    start, moments = held_out(), [[torch.zeros_like(w) for w in weights] for _ in BETAS]
    for step in range(1, SAMPLES // batch + 1):
        x = torch.randn(SEEDS, 1, batch, INPUTS, generator=draw)
        y = truth(x, teacher) + NOISE * torch.randn(SEEDS, 1, batch, 1, generator=draw)
        loss = ((x @ weights[0]).tanh() @ weights[1] - y).square().mean((2, 3)).sum()
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for w, g, m, v in zip(weights, gradients, *moments, strict=True):
                m.lerp_(g, 1 - betas[0])
                v.lerp_(g * g, 1 - betas[1])
                mean, square = m / (1 - betas[0] ** step), v / (1 - betas[1] ** step)
                w -= rates * mean / (square.sqrt() + eps)
    return held_out(), start


def measured(beta_too=True):
    """Best rates by batch, and how far they move per doubling of it, with intervals over seeds."""
    found = [losses(batch, beta_too) for batch in BATCHES]
    table, start = (torch.stack([x[i] for x in found]).double().numpy() for i in range(2))
    return transfer(Losses(BATCHES, tuple(map(float, RATES)), table, start[:, :, 0]))


if __name__ == "__main__":
    for beta_too, name in ((True, "1 - beta grows with the batch"), (False, "betas as they are")):
        found = measured(beta_too)
        best = ", ".join(f"{b}: {x.value:+.2f}" for b, x in zip(BATCHES, found.best, strict=True))
        print(f"{name}: log2 of the best rate by batch {best}; {found.drift} per doubling")
        print(
            *(f"  of {x:g}: {found.drift.judge(x, 0.25).name}" for x in (0.0, 0.5, 1.0)), sep="\n"
        )
