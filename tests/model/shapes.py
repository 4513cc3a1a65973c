"""Tiny decoders of every Hugging Face family and option, with rough weights, so that a wrong one shows."""

from __future__ import annotations

from dataclasses import replace

import torch

from diglot.model.config import DecoderConfig, InitConfig, MoEConfig, RopeScaling
from diglot.model.decoder import Decoder

VOCAB = 97
PLAIN = DecoderConfig(
    vocab_size=VOCAB,
    d_model=48,
    num_layers=4,
    num_heads=6,
    num_kv_heads=2,
    head_dim=8,
    ffn_dim=80,
    max_seq_len=160,
    norm_eps=1e-5,
)
MIXED = (True, False, True, True)
GEMMA = replace(
    PLAIN, unit_offset_norm=True, embed_scale=48**0.5, activation="gelu_tanh", tie_embeddings=True, norm_eps=1e-6
)
GEMMA_2 = replace(
    GEMMA,
    sandwich_norm=True,
    attention_softcap=5.0,
    logit_softcap=3.0,
    attention_scale=24**-0.5,
    sliding_window=9,
    sliding_layers=MIXED,
)
GEMMA_3 = replace(
    GEMMA, sandwich_norm=True, qk_norm=True, sliding_window=9, sliding_layers=MIXED, local_rope_theta=1000.0
)
MOE = MoEConfig(num_experts=5, top_k=2, expert_dim=24)
QWEN_2_MOE = MoEConfig(
    num_experts=5,
    top_k=2,
    expert_dim=24,
    shared_dim=32,
    shared_gate=True,
    normalise_top_k=False,
    layers=(True, False, True, True),
)
LLAMA_3 = RopeScaling(kind="llama3", factor=4.0, original_seq_len=64, low_freq_factor=1.0, high_freq_factor=4.0)
YARN = RopeScaling(kind="yarn", factor=4.0, original_seq_len=40)
LINEAR = RopeScaling(kind="linear", factor=2.0)

# name -> (shape, the model_type it is written as)
LAYOUTS = {
    "llama": (PLAIN, "llama"),
    "llama, multi-head": (replace(PLAIN, num_kv_heads=6), "llama"),
    "llama, multi-query": (replace(PLAIN, num_kv_heads=1), "llama"),
    "llama, tied": (replace(PLAIN, tie_embeddings=True), "llama"),
    "llama, wide heads": (replace(PLAIN, head_dim=16), "llama"),
    "llama, other theta": (replace(PLAIN, rope_theta=500_000.0, norm_eps=1e-6), "llama"),
    "llama, all biases": (replace(PLAIN, qkv_bias=True, out_bias=True, ffn_bias=True), "llama"),
    "llama, attention biases": (replace(PLAIN, qkv_bias=True, out_bias=True), "llama"),
    "llama, gelu": (replace(PLAIN, activation="gelu_tanh"), "llama"),
    "llama, RoPE linear": (replace(PLAIN, rope_scaling=LINEAR), "llama"),
    "llama, RoPE ntk": (replace(PLAIN, rope_scaling=RopeScaling(kind="ntk", factor=3.0)), "llama"),
    "llama, RoPE yarn": (replace(PLAIN, rope_scaling=YARN), "llama"),
    "llama, RoPE yarn, factor": (replace(PLAIN, rope_scaling=replace(YARN, attention_factor=1.3)), "llama"),
    "llama, RoPE llama3": (replace(PLAIN, rope_scaling=LLAMA_3), "llama"),
    "llama, µP": (replace(PLAIN, mup_base_d_model=16), "llama"),
    "llama, µP, tied, biases": (
        replace(PLAIN, mup_base_d_model=16, tie_embeddings=True, qkv_bias=True, out_bias=True),
        "llama",
    ),
    "llama, scaled embedding": (replace(PLAIN, embed_scale=5.0), "llama"),
    "llama, scaled tied embedding": (replace(PLAIN, embed_scale=5.0, tie_embeddings=True), "llama"),
    "mistral": (replace(PLAIN, sliding_window=9), "mistral"),
    "mistral, heads that do not divide": (replace(PLAIN, d_model=50), "mistral"),
    "qwen2": (replace(PLAIN, qkv_bias=True), "qwen2"),
    "qwen2, sliding": (replace(PLAIN, qkv_bias=True, sliding_window=9, sliding_layers=MIXED), "qwen2"),
    "qwen2, all sliding, yarn": (replace(PLAIN, qkv_bias=True, sliding_window=9, rope_scaling=YARN), "qwen2"),
    "qwen3": (replace(PLAIN, qk_norm=True), "qwen3"),
    "qwen3, tied, biases": (replace(PLAIN, qk_norm=True, tie_embeddings=True, qkv_bias=True, out_bias=True), "qwen3"),
    "qwen3, sliding": (replace(PLAIN, qk_norm=True, sliding_window=9, sliding_layers=MIXED), "qwen3"),
    "qwen3, µP": (replace(PLAIN, qk_norm=True, mup_base_d_model=12), "qwen3"),
    "gemma": (GEMMA, "gemma"),
    "gemma, µP": (replace(GEMMA, mup_base_d_model=12, tie_embeddings=False), "gemma"),
    "gemma, unscaled embedding": (replace(GEMMA, embed_scale=1.0), "gemma"),
    "gemma2": (GEMMA_2, "gemma2"),
    "gemma2, no caps": (replace(GEMMA_2, attention_softcap=None, logit_softcap=None), "gemma2"),
    "gemma2, no window": (replace(GEMMA_2, sliding_window=None, sliding_layers=None), "gemma2"),
    "gemma3": (GEMMA_3, "gemma3_text"),
    "gemma3, linear": (replace(GEMMA_3, rope_scaling=LINEAR), "gemma3_text"),
    "gemma3, one theta, linear": (replace(GEMMA_3, rope_scaling=LINEAR, local_rope_theta=None), "gemma3_text"),
    "gemma3, odd scale, µP": (replace(GEMMA_3, attention_scale=0.31, mup_base_d_model=12), "gemma3_text"),
    "mixtral": (replace(PLAIN, moe=MOE, ffn_dim=24), "mixtral"),
    "mixtral, sliding": (replace(PLAIN, moe=MOE, ffn_dim=24, sliding_window=9), "mixtral"),
    "qwen2-moe": (replace(PLAIN, moe=QWEN_2_MOE, qkv_bias=True), "qwen2_moe"),
    "qwen2-moe, no biases": (replace(PLAIN, moe=QWEN_2_MOE), "qwen2_moe"),
    "qwen2-moe, all layers": (replace(PLAIN, moe=replace(QWEN_2_MOE, layers=None), qkv_bias=True), "qwen2_moe"),
    "qwen3-moe, normalised": (replace(PLAIN, moe=MOE, qk_norm=True, ffn_dim=24), "qwen3_moe"),
    "qwen3-moe": (replace(PLAIN, moe=replace(MOE, normalise_top_k=False), qk_norm=True, ffn_dim=24), "qwen3_moe"),
    "qwen3-moe, some layers": (replace(PLAIN, moe=replace(MOE, layers=MIXED), qk_norm=True), "qwen3_moe"),
}
# name in LAYOUTS, or a shape of its own -> llama.cpp's architecture
GGUF = {
    "llama": "llama",
    "llama, multi-query": "llama",
    "llama, tied": "llama",
    "llama, wide heads": "llama",
    "llama, all biases": "llama",
    "llama, RoPE linear": "llama",
    "llama, RoPE ntk": "llama",
    "llama, RoPE yarn": "llama",
    "llama, RoPE yarn, factor": "llama",
    "llama, RoPE llama3": "llama",
    "llama, µP, tied, biases": "llama",
    "llama, scaled tied embedding": "llama",
    "mistral, heads that do not divide": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3, µP": "qwen3",
    "gemma": "gemma",
    "gemma, unscaled embedding": "gemma",
    "gemma2": "gemma2",
    "gemma2, no window": "gemma2",
    "gemma3": "gemma3",
    "gemma3, linear": "gemma3",
    "gemma3, odd scale, µP": "gemma3",
    "mixtral": "llama",
    "qwen2-moe, all layers": "qwen2moe",
    "qwen3-moe, normalised": "qwen3moe",
}
NO_GGUF = {
    "llama, gelu": "activation gelu_tanh",
    "mistral": "sliding_window",
    "qwen3, sliding": "sliding_window",
    "qwen3, tied, biases": "qkv_bias; out_bias",
    "gemma, µP": "an output matrix of its own",
    "gemma2, no caps": "attention without both soft caps",
    "gemma3, one theta, linear": "RoPE scaling in sliding layers",
    "qwen2-moe": "experts in some layers only",
    "qwen3-moe": "normalise_top_k = False",
}
# what Hugging Face's classes do not compute -> what the error names
NO_LAYOUT = {
    "widths by layer": (replace(PLAIN, ffn_dim=(16, 64, 8, 32)), "ffn_dim"),
    "heads by layer": (replace(PLAIN, num_heads=(6, 2, 6, 4)), "num_heads"),
    "qk-norm with bias": (replace(PLAIN, qk_norm=True, qkv_bias=True), "qk_norm"),
    "sigmoid router": (replace(PLAIN, moe=replace(MOE, score="sigmoid"), ffn_dim=24), "moe"),
    "soft cap alone": (replace(PLAIN, logit_softcap=3.0), "logit_softcap"),
    "shared expert without gate": (
        replace(PLAIN, moe=replace(QWEN_2_MOE, shared_gate=False), qkv_bias=True, mup_base_d_model=24),
        "moe",
    ),
}


def rough(config: DecoderConfig, seed: int = 0) -> Decoder:
    """Weights far from their start and from each other, norms and biases too."""
    model = Decoder(config, seed=seed, init=InitConfig(std=0.15, embed_std=1.0 / config.embed_scale))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def ids(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))
