"""Plans of models that are wrapped: DDP and FSDP in two processes, torch.compile, checkpoints.

The oracle is the plain model in one process: the same weights are drawn, and steps on halves of a
batch in two processes are steps on the whole of it.
"""

import copy
import os
import socket
import tempfile
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from test_plan import GPT, TUNED, gpt, rows
from torch import Tensor, distributed, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from empirical import ModelPlan, for_model, initialise_, plan
from empirical.plans.code_factors import wrapped
from empirical.plans.planned_tensors import PlannedChange
from scaling.sizes.errors import InvalidInput, NotCovered

WORLD = 2
SIZES = {"width": 64}
Weights = dict[str, Tensor]
pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")


def deep(width: int = 16) -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.LayerNorm(width),
        nn.Linear(width, 3),
    )  # fmt: skip


@cache
def wide() -> ModelPlan:
    return plan(deep, rows, "adamw", {"width": 16}, SIZES, TUNED)


def data() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(8, 4, generator=draw, dtype=torch.float64)
    return x, torch.randint(3, (8,), generator=draw)


def built() -> nn.Module:
    torch.manual_seed(0)
    return deep(**SIZES).double()


def stepped(model: nn.Module, groups: list, part: slice = slice(None)) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(groups, lr=TUNED["lr"])
    x, y = (one[part] for one in data())
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return optimizer


@cache
def plain(own: bool = True) -> Weights:
    """Drawn, and stepped three times, in one process; ``own``: by the numbers of the plan."""
    model = built()
    wide().apply_(model)
    stepped(model, wide().param_groups(model) if own else [{"params": model.parameters()}])
    return {name: p.detach() for name, p in model.named_parameters()}


def in_two_processes(work: Callable[[int], Weights]) -> list[Weights]:
    """The results of both ranks, which share the code and the plan of this process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(WORLD):
            child = os.fork()
            if not child:
                code = 1
                try:
                    torch.set_num_threads(1)
                    distributed.init_process_group(
                        "gloo", init_method=address, rank=rank, world_size=WORLD
                    )
                    torch.save(work(rank), Path(folder) / f"{rank}.pt")
                    distributed.barrier()
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * WORLD
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(WORLD)]


def whole(model: nn.Module) -> Weights:
    parts = {name.removeprefix("module."): p.detach() for name, p in model.named_parameters()}
    return {k: x.full_tensor() if isinstance(x, DTensor) else x for k, x in parts.items()}


def by_ddp(rank: int) -> Weights:
    model = DistributedDataParallel(built())
    assert len(wide().apply_(model)) == 6
    optimizer = stepped(model, wide().param_groups(model), slice(4 * rank, 4 * rank + 4))
    wide().require(optimizer, model)
    return whole(model)


def by_fsdp(rank: int) -> Weights:
    model = built()
    fully_shard(model[2])
    fully_shard(model)
    wide().apply_(model)
    optimizer = stepped(model, wide().param_groups(model), slice(4 * rank, 4 * rank + 4))
    wide().require(optimizer, model)
    assert all(isinstance(p, DTensor) for p in model.parameters())
    again = torch.optim.AdamW(wide().param_groups(model))
    again.load_state_dict(optimizer.state_dict())
    wide().require(again, model)
    return whole(model)


def by_older_fsdp(rank: int) -> Weights:
    """Drawn before it is wrapped: flat tensors have no shapes to draw."""
    model = built()
    wide().apply_(model)
    cpu = torch.device("cpu")
    model = FullyShardedDataParallel(model, use_orig_params=True, device_id=cpu)
    with pytest.raises(InvalidInput, match="call apply_ before it wraps the model"):
        wide().apply_(model)
    stepped(model, wide().param_groups(model), slice(4 * rank, 4 * rank + 4))
    with FullyShardedDataParallel.summon_full_params(model):
        found = {k.removeprefix("_fsdp_wrapped_module."): p.detach().clone()
                 for k, p in model.named_parameters()}  # fmt: skip
    flattened = FullyShardedDataParallel(built(), device_id=cpu)
    with pytest.raises(InvalidInput, match=r"_flat_param' of FullyShardedDataParallel, in the"):
        wide().param_groups(flattened)
    return found


def agree(one: Weights, other: Weights) -> bool:
    assert list(one) == list(other)
    return all(torch.allclose(one[k], other[k], rtol=1e-7, atol=1e-10) for k in one)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a process that used CUDA cannot be forked")
@pytest.mark.parametrize("work", [by_ddp, by_fsdp, by_older_fsdp])
def test_two_processes_draw_and_train_what_one_does(work: Callable[[int], Weights]) -> None:
    """The control: the same steps at one rate for all tensors end elsewhere."""
    plain()
    for found in in_two_processes(work):
        assert agree(found, plain())
        assert not agree(found, plain(own=False))


def test_names_under_wrappers_are_those_of_the_model() -> None:
    """A module that the model itself calls "module" keeps its name."""

    class Holder(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.module = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.module(x)

    def build(width: int = 16) -> nn.Module:
        return Holder(width)

    found = plan(build, rows, "sign(G)", {"width": 16}, {"width": 64}, {"lr": 0.1})
    assert "module.0.weight" in found.tensors
    plain, other = build(64), build(64)
    other.module[2] = torch.compile(checkpoint_wrapper(other.module[2]))
    other = torch.compile(nn.DataParallel(other))
    assert found.apply_(plain) == found.apply_(other)
    assert all(map(torch.equal, plain.parameters(), other.parameters()))
    assert [len(x["params"]) for x in found.param_groups(other)] == [
        len(x["params"]) for x in found.param_groups(plain)
    ]
    with pytest.raises(InvalidInput, match=r"the tensor 'module\.extra\.weight'"):
        other._orig_mod.module.module.extra = nn.Linear(2, 2)
        found.param_groups(other)
    scales = for_model(
        "adamw",
        build,
        base=16,
        width=64,
        dampings={"eps": 1e-8},
        decays={"decay": 0.1},
        batch=rows(),
    )
    one, other = build(64), torch.compile(build(64))
    initialise_(one, build(16), scales, seed=0, width=64)
    drawn = initialise_(other, build(16), scales, seed=0, width=64)
    assert "module.0.weight" in drawn.drawn
    assert torch.equal(one.module[0].weight, other._orig_mod.module[0].weight)


def test_tensors_without_entries_are_not_drawn() -> None:
    with torch.device("meta"):
        model = deep(**SIZES)
    with pytest.raises(InvalidInput, match=r"(?s)'0.weight' on the meta device.*to_empty"):
        wide().apply_(model)
    assert len(wide().param_groups(model)) > 1


def small_gpt() -> tuple[nn.Module, tuple[PlannedChange, ...]]:
    """One block, and changes of a line and of a branch."""
    torch.manual_seed(0)
    place = next(n for n, x in enumerate(GPT.read_text().splitlines(), 1) if "self.scale)" in x)
    line = PlannedChange("width", "gpt.py", place, ("blocks.0",), "multiply", "", "", 0.25, "")
    branch = PlannedChange("depth", "gpt.py", 1, ("blocks.0.down",), "add", "", "", 0.5, "")
    return gpt().build(width=16).double(), (line, branch)


@pytest.mark.parametrize("first", ["wrapped", "called", "block"])
def test_changed_factors_stay_under_torch_compile_whichever_comes_first(first: str) -> None:
    torch._dynamo.reset()
    model, changes = small_gpt()
    x = gpt().batch()[0]
    before = model(x)
    changed = wrapped(model, changes)
    after, copied = model(x), copy.deepcopy(model)
    assert torch.equal(copied(x), after) and not torch.allclose(after, before, rtol=1e-3)
    changed.remove()
    assert torch.equal(model(x), before) and torch.equal(copied(x), after)
    if first == "wrapped":
        changed = wrapped(model, changes)
        model = torch.compile(model, backend="eager")
    else:
        if first == "block":
            model.blocks[0] = torch.compile(model.blocks[0], backend="eager")
        else:
            model = torch.compile(model, backend="eager")
        model(x)
        changed = wrapped(model, changes)
    assert torch.allclose(model(x), after, rtol=1e-12)
    changed.remove()
    assert torch.allclose(model(x), before, rtol=1e-12)


def test_factors_are_changed_once() -> None:
    model, changes = small_gpt()
    for one in changes:
        first = wrapped(model, [one])
        with pytest.raises(InvalidInput, match="whose factors are changed already"):
            wrapped(model, changes)
        first.remove()
    wrapped(model, changes)
    assert isinstance(model.blocks[0], gpt().Block)


def test_two_products_of_a_line_are_refused_where_one_has_a_factor() -> None:
    class Twice(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.embed, self.q = nn.Embedding(16, width), nn.Linear(width, width)
            self.head, self.scale = nn.Linear(width, 16), width**-0.5

        def forward(self, ids: Tensor) -> Tensor:
            x = self.embed(ids)
            logits = (self.q(x) * 2.0) @ x.mT * self.scale
            return self.head(logits.softmax(-1) @ x)

    def build(width: int = 16) -> nn.Module:
        return Twice(width)

    def batch() -> tuple[Tensor, Tensor]:
        ids = torch.arange(12).reshape(2, 6)
        return ids, ids

    found = plan(build, batch, "sign(G)", {"width": 16}, {"width": 64}, {"lr": 0.1},
                 change_code=True)  # fmt: skip
    twice = build(64)
    found.wrap(twice)
    with pytest.raises(NotCovered, match=r"two products at test_wrapped_models\.py:"):
        twice(batch()[0])


class Checkpointed(nn.Module):
    """One product, in a checkpoint of its own or in none."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.up, self.reentrant = nn.Linear(4, 4), reentrant

    def inner(self, x: Tensor) -> Tensor:
        y = self.up(x).tanh() * 3.0
        return y.tanh()

    def forward(self, x: Tensor) -> Tensor:
        if self.reentrant is None:
            return self.inner(x)
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_around_a_module_has_its_factors_and_one_inside_of_it_is_refused(
    reentrant: bool,
) -> None:
    """It would run the line again in the backward pass, without the factor: other gradients."""
    text = Path(__file__).read_text().splitlines()
    place = next(n for n, x in enumerate(text, 1) if "tanh() * 3.0" in x)
    line = PlannedChange("width", Path(__file__).name, place, ("",), "multiply", "", "", 0.5, "")
    x = torch.ones(2, 4, requires_grad=True)

    def gradient(whole: bool, changed: bool = True) -> Tensor:
        torch.manual_seed(0)
        model = Checkpointed(None)
        if changed:
            wrapped(model, [line])
        result = checkpoint(model, x, use_reentrant=reentrant) if whole else model(x)
        result.square().sum().backward()
        assert model.up.weight.grad is not None
        return model.up.weight.grad

    assert torch.allclose(gradient(True), gradient(False))
    assert not torch.allclose(gradient(True), gradient(True, changed=False), rtol=0.1)
    inside = Checkpointed(reentrant)
    wrapped(inside, [line])
    with pytest.raises(NotCovered, match=r"(?s), in a checkpoint .*checkpoint\(module, x\)"):
        inside(x)
