"""Models of `transformers` and `timm`, with random weights: derived, some of them measured.

`make models` installs both libraries; without them these tests are skipped.
"""

import importlib.util
from functools import cache

import pytest
from model_files import published
from sympy import Rational, oo

from empirical.fit.verdict import Verdict
from empirical.trace.given_model import model_of
from empirical.trace.model_file import ModelFile
from empirical.trace.read_model import graph_of
from empirical.verify.graph_verification import verify_graph
from scaling.models.settings import Settings
from scaling.sizes.errors import NotCovered
from scaling.solve.graph_solution import GraphDerived, derive_graph

for library in ("torchvision", "transformers", "timm"):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}: make models", allow_module_level=True)
published.import_torchvision()

QUERIES = {
    # queries of the first block, a matrix of the last, and the readout
    "gpt2": ("transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_fc", "transformer.wte"),
    "llama": ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj", "lm_head"),
    "bert": ("bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.1.output.dense",
             "bert.embeddings.word_embeddings"),
    "vit": ("vit.layers.0.attention.q_proj", "vit.layers.1.mlp.fc1", "classifier"),
}  # fmt: skip


def file_of(name: str) -> ModelFile:
    return model_of(getattr(published, name), published.batch_of(name))


@cache
def answer(name: str) -> GraphDerived:
    return derive_graph("sign(G)", graph_of(file_of(name), "width=32,64,128").graph)


@pytest.mark.parametrize("name", QUERIES)
def test_matrices_have_the_exponents_of_their_use_and_the_root_of_the_head_size_is_named(
    name: str,
) -> None:
    found = answer(name)
    queries, matrix, readout = (found.tensors[f"model.{tensor}.weight"] for tensor in QUERIES[name])
    assert (queries.b, queries.c) == (Rational(1, 2), Rational(3, 2))
    assert "scaled_dot_product_attention" in queries.binds
    assert (matrix.b, matrix.c) == (Rational(1, 2), 1)
    assert (readout.b, readout.c) == (1, 1)
    roots = [x for x in found.changes if (x.found, x.needed) == (Rational(-1, 2), -1)]
    assert len(roots) == 1 and "modeling_" in roots[0].where
    # an embedding that is the readout starts as small as that, and its line says what cures it
    tied = [x for x in found.changes if "is used twice" in x.why]
    assert bool(tied) is (name in ("gpt2", "bert"))


HALF = Rational(1, 2)
VECTOR, MATRIX, READOUT = (0, 0), (HALF, 1), (1, 1)
OTHERS: dict[str, dict[str, tuple[object, object]]] = {
    "mixtral": {  # experts that an index picks are matrices; their router is a readout
        "model.model.layers.1.mlp.experts.gate_up_proj": MATRIX,
        "model.model.layers.1.mlp.experts.down_proj": MATRIX,
        "model.model.layers.1.mlp.gate.weight": READOUT,
        "model.model.layers.0.self_attn.k_proj.weight": (HALF, 3 * HALF),
        "model.lm_head.weight": READOUT,
    },
    "resnet": {  # a last gain of a block that starts at zero, with batch norm
        "conv1.0.weight": VECTOR, "layer1.0.bn2.weight": (oo, 0), "layer2.0.conv1.weight": MATRIX,
        "layer2.0.downsample.0.weight": MATRIX, "fc.weight": READOUT,
    },
    "convnext": {
        "stem.0.weight": VECTOR, "stages.0.blocks.0.gamma": VECTOR,
        "stages.0.blocks.0.conv_dw.weight": VECTOR, "stages.0.blocks.0.mlp.fc1.weight": MATRIX,
        "stages.1.downsample.1.weight": MATRIX, "head.fc.weight": READOUT,
    },
    "mixer": {  # tokens are as many as patches; a head that starts at zero
        "stem.proj.weight": VECTOR, "blocks.0.mlp_tokens.fc1.weight": VECTOR,
        "blocks.0.mlp_tokens.fc2.weight": READOUT, "blocks.0.mlp_channels.fc1.weight": MATRIX,
        "head.weight": (oo, 1),
    },
    "timm_vit": {
        "cls_token": (0, HALF), "blocks.0.attn.qkv.weight": (HALF, 3 * HALF),
        "blocks.0.mlp.fc2.weight": MATRIX, "head.weight": READOUT,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_every_tensor_has_the_exponents_of_its_use(name: str) -> None:
    found = derive_graph("sign(G)", graph_of(file_of(name), "width=16,32,48").graph).tensors
    assert {key: (found[key].b, found[key].c) for key in OTHERS[name]} == OTHERS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_no_node_of_it_contradicts_the_derived_exponents(name: str) -> None:
    found = verify_graph("sign(G)", file_of(name), "width=32,64,128,256", seeds=(0, 1, 2))
    assert len(found.checks) > 100
    wrong = [f"{c.quantity} {c.name}" for c in found.checks if c.verdict is Verdict.contradict]
    assert not wrong


T5 = "found: entries that grow like M\\^\\(1/2\\) under a softmax.*\n.*\n.*'b_\\*.q.weight=1'"


@pytest.mark.slow
def test_t5_has_no_scale_of_attention_and_is_read_where_its_queries_start_small() -> None:
    """Encoder, decoder and attention across, with learned biases of positions beside masks."""
    file, sizes = file_of("t5"), "width=16,32,64,128"
    with pytest.raises(NotCovered, match=T5):
        derive_graph("sign(G)", graph_of(file, sizes).graph)
    tensors = [p.name for p in graph_of(file, sizes).graph.parameters]
    queries = [name for name in tensors if name.endswith(".q.weight")]
    given = Settings(b=dict.fromkeys(queries, Rational(1)))
    found = verify_graph("sign(G)", file, sizes, given, seeds=(0, 1, 2))
    assert len(queries) == 3 and len(found.checks) > 100
    wrong = [f"{c.quantity} {c.name}" for c in found.checks if c.verdict is Verdict.contradict]
    assert not wrong
