"""GPT-2, Llama, BERT and ViT of `transformers`, with random weights: derived and measured."""

from functools import cache

import pytest
from model_files import published
from sympy import Rational

from empirical.fit.verdict import Verdict
from empirical.trace.given_model import model_of
from empirical.trace.model_file import ModelFile
from empirical.trace.read_model import graph_of
from empirical.verify.graph_verification import verify_graph
from scaling.solve.graph_solution import GraphDerived, derive_graph

pytest.importorskip("transformers", reason="needs models of a library: pip install transformers")

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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_no_node_of_it_contradicts_the_derived_exponents(name: str) -> None:
    found = verify_graph("sign(G)", file_of(name), "width=32,64,128,256", seeds=(0, 1, 2))
    assert len(found.checks) > 100
    wrong = [f"{c.quantity} {c.name}" for c in found.checks if c.verdict is Verdict.contradict]
    assert not wrong
