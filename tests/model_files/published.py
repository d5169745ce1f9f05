"""Models of `transformers` and `timm`, random weights, from a configuration of a few lines."""

import re
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

SMALL: dict[str, Any] = {"vocab_size": 40, "use_cache": False}


@cache
def import_torchvision() -> object:
    """Import what both libraries import, whatever torch it was built for.

    A torchvision that was built for CUDA lacks its operators beside a torch for the CPU. No model
    here calls one, so that their names are enough.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    while True:
        try:
            import torchvision  # noqa: F401
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            library.define(f"{missing[1]}(Tensor x) -> Tensor")
            for name in [x for x in sys.modules if x.startswith("torchvision")]:
                del sys.modules[name]
        else:
            return library


class Logits(nn.Module):
    """A model of the library, and the logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x).logits
        return logits


class Translated(Logits):
    """An encoder and a decoder, which see the same words."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=x, decoder_input_ids=x).logits
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


def mixtral(width: int = 32, depth: int = 2) -> nn.Module:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=depth,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=4,
        max_position_embeddings=16, experts_implementation="batched_mm", **SMALL,
    )  # fmt: skip
    return Logits(MixtralForCausalLM(config))


def t5(width: int = 32) -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        d_model=width, d_kv=width // 4, d_ff=2 * width, num_layers=1, num_heads=4,
        dropout_rate=0.0, **SMALL,
    )  # fmt: skip
    return Translated(T5ForConditionalGeneration(config))


def resnet(width: int = 16) -> nn.Module:
    from timm.models.resnet import BasicBlock, ResNet

    channels = (width, 2 * width, 4 * width, 8 * width)
    return ResNet(
        BasicBlock, (1, 1, 1, 1), 10, channels=channels, stem_width=width, stem_type="deep"
    )


def convnext(width: int = 16) -> nn.Module:
    from timm.models.convnext import ConvNeXt

    dims = (width, 2 * width, 4 * width, 8 * width)
    return ConvNeXt(depths=(1, 1, 1, 1), dims=dims, num_classes=10)


def mixer(width: int = 16) -> nn.Module:
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(num_classes=10, img_size=32, patch_size=8, num_blocks=1, embed_dim=width)


def timm_vit(width: int = 16) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=32, patch_size=8, num_classes=10, embed_dim=width, depth=1, num_heads=4
    )


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
    if name in ("resnet", "convnext", "mixer", "timm_vit"):
        return torch.randn(4, 3, 32, 32, generator=generator), torch.arange(4)
    if name == "vit":
        return torch.randn(2, 3, 16, 16, generator=generator), torch.tensor([1, 2])
    ids = torch.randint(40, (4, 9), generator=generator)
    return ids[:, :-1], ids[:, 1:]
