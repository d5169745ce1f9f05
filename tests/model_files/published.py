"""Models of `transformers` with random weights, from a configuration of a few lines."""

from typing import Any

import torch
from torch import Tensor, nn

SMALL: dict[str, Any] = {"vocab_size": 40, "use_cache": False}


class Logits(nn.Module):
    """A model of the library, and the logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x).logits
        return logits


def gpt2(width: int = 32, depth: int = 2) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_positions=16, n_embd=width, n_layer=depth, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, **SMALL,
    )  # fmt: skip
    return Logits(GPT2LMHeadModel(config))


def llama(width: int = 32, depth: int = 2) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=depth,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=16, **SMALL,
    )  # fmt: skip
    return Logits(LlamaForCausalLM(config))


def sizes(width: int, depth: int) -> dict[str, Any]:
    return {
        "hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": 4,
        "intermediate_size": 2 * width, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip


def bert(width: int = 32, depth: int = 2) -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(vocab_size=40, max_position_embeddings=16, **sizes(width, depth))
    return Logits(BertForMaskedLM(config))


def vit(width: int = 32, depth: int = 2) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(image_size=16, patch_size=4, num_labels=10, **sizes(width, depth))
    return Logits(ViTForImageClassification(config))


def batch_of(name: str) -> tuple[Tensor, Tensor]:
    generator = torch.manual_seed(0)
    if name == "vit":
        return torch.randn(2, 3, 16, 16, generator=generator), torch.tensor([1, 2])
    ids = torch.randint(40, (4, 9), generator=generator)
    return ids[:, :-1], ids[:, 1:]
