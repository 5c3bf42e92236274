#!/usr/bin/env python3
"""Golden files of crates/model for every architecture: small random checkpoints as transformers saves them and as GGUF, with the logits that transformers computes in f32 over 200 tokens. Windows, and the lengths at
which rotations change, lie within these tokens.

    pip install -r scripts/golden/requirements.txt
    python scripts/golden/architectures.py [NAME ...]
"""

import json
import math
import shutil
import sys

import numpy as np
import torch
import transformers as hf
from gguf import GGMLQuantizationType as Q
from gguf import GGUFWriter
from safetensors.torch import load_file, save_file

import model_gguf
import model_tokenizers
from model import OUT

LENGTH = 200
KEPT = [0, 1, 23, 24, 25, 63, 64, 65, 127, 128, 199]
"""Positions whose logits are kept."""

SHAPE = dict(
    hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
    max_position_embeddings=256, bos_token_id=0, eos_token_id=1, pad_token_id=2,
)
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}


def randomize(model, seed, norm):
    """Weights that make attention and logits far from uniform; norm weights near `norm`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                value = noise * (1.5 / parameter.shape[-1] ** 0.5)
            else:
                value = noise * 0.2 + (0.0 if name.endswith("bias") else norm)
            # What a file of bfloat16 holds.
            parameter.copy_(value.to(torch.bfloat16).float())
    return model.eval().float()


def expected(path, model, stepped):
    """Logits of a prefill; with `stepped`, also those of one token at a time, where rotations depend on the length."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, model.config.vocab_size, (LENGTH,), generator=generator)
    kept = torch.tensor(KEPT)
    with torch.no_grad():
        tensors = {
            "tokens": tokens.to(torch.int32),
            "positions": kept.to(torch.int32),
            "logits": model(tokens[None], use_cache=False).logits[0][kept].contiguous().float(),
        }
        if stepped:
            cache, rows = hf.DynamicCache(config=model.config), []
            for token in tokens:
                rows.append(model(token[None, None], past_key_values=cache, use_cache=True).logits[0, -1])
            tensors["stepped"] = torch.stack(rows)[kept].contiguous().float()
    save_file(tensors, path)


def metadata(arch, config, more):
    return {
        "general.name": arch,
        f"{arch}.block_count": config.num_hidden_layers,
        f"{arch}.context_length": config.max_position_embeddings,
        f"{arch}.embedding_length": config.hidden_size,
        f"{arch}.feed_forward_length": config.intermediate_size,
        f"{arch}.attention.head_count": config.num_attention_heads,
        f"{arch}.attention.head_count_kv": config.num_key_value_heads,
        f"{arch}.attention.key_length": config.head_dim,
        f"{arch}.attention.value_length": config.head_dim,
        f"{arch}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        **{f"{arch}.{key}": value for key, value in more.items()},
    }


NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "block_sparse_moe.gate": "ffn_gate_inp",
    "mlp.gate.": "ffn_gate_inp.",
    "input_layernorm": "attn_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "model.layers": "blk",
}
EXPERT_PARTS = {
    "gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps",
    "w1": "ffn_gate_exps", "w3": "ffn_up_exps", "w2": "ffn_down_exps",
}
REORDERED = {"llama", "smollm3", "granite"}
"""Architectures whose Q and K the converter reorders."""


def save_gguf(name, arch, config, state, values, tokenizer, norm_offset, extra, part=0):
    """The same weights, so that the logits are the same; in files of at most `part` tensors, if that is not 0."""
    writer = GGUFWriter(OUT / f"{name}.gguf", arch, split_max_tensors=part)
    for key, value in values.items():
        {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)](key, value)
    model_gguf.add_tokenizer(writer, tokenizer)
    has_post_norm = any("post_feedforward_layernorm" in key for key in state)
    table = NAMES | {"post_attention_layernorm": "post_attention_norm" if has_post_norm else "ffn_norm"}
    experts = {}
    for hub, tensor in state.items():
        array = tensor.float().numpy()
        if ".experts." in hub:
            layer, (index, part) = hub.split(".")[2], hub.split(".experts.")[1].split(".")[:2]
            experts.setdefault(f"blk.{layer}.{EXPERT_PARTS[part]}.weight", {})[int(index)] = array
            continue
        short = model_gguf.gguf_name(hub, table)
        if "norm" in short:
            array = array + norm_offset
        if arch in REORDERED and (".attn_q." in short or ".attn_k." in short):
            heads = config.num_attention_heads if ".attn_q." in short else config.num_key_value_heads
            array = model_gguf.interleave(array, heads)
        if array.ndim == 2:
            writer.add_tensor(short, np.ascontiguousarray(array.astype(np.float16)), raw_dtype=Q.F16)
        else:
            writer.add_tensor(short, np.ascontiguousarray(array.astype(np.float32)))
    for short, parts in experts.items():
        stacked = np.stack([parts[i] for i in range(len(parts))])
        writer.add_tensor(short, stacked.astype(np.float16), raw_dtype=Q.F16)
    for short, array in extra.items():
        writer.add_tensor(short, array.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(name, config, arch=None, more={}, norm=1.0, norm_offset=0.0, stepped=False, extra={}):
    """A folder and, if `arch` says what GGUF calls it, a GGUF file."""
    bpe = model_tokenizers.byte_level("qwen2", 300)
    config.vocab_size = bpe.get_vocab_size()
    config.tie_word_embeddings = True
    model = randomize(hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager"), len(name), norm)
    model.tie_weights()
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    saved = folder / "saved"
    model.save_pretrained(saved)
    state = load_file(saved / "model.safetensors")
    save_file({k: v.to(torch.bfloat16) for k, v in state.items()}, folder / "model.safetensors")
    values = json.loads((saved / "config.json").read_text())
    values.pop("transformers_version")
    values["dtype"] = "bfloat16"
    (folder / "config.json").write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
    shutil.rmtree(saved)
    model_tokenizers.save(bpe, "qwen2", folder)
    expected(folder / "expected.safetensors", model, stepped)
    if arch:
        tokenizer = {"kind": "qwen2", "tokenizer": bpe}
        values = metadata(arch, config, more)
        save_gguf(name, arch, config, state, values, tokenizer, norm_offset, extra)
        if name == "olmo2":
            save_gguf("olmo2-split", arch, config, state, values, tokenizer, norm_offset, extra, part=10)


def longrope(dimensions):
    steps = range(dimensions // 2)
    return [1.0 + 0.05 * i for i in steps], [1.5 + 0.7 * i for i in steps]


def qwen3():
    config = hf.Qwen3Config(
        **SHAPE, num_hidden_layers=2, rope_parameters={"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 64},
    )
    rope = {"rope.freq_base": 1e6, "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}
    make("qwen3", config, "qwen3", rope)


def qwen2_window():
    config = hf.Qwen2Config(
        **SHAPE, num_hidden_layers=3, use_sliding_window=True, sliding_window=24, max_window_layers=1,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 3.0},
    )
    config.max_position_embeddings = 100
    make("qwen2-window", config, stepped=True)


def gemma2():
    config = hf.Gemma2Config(
        **SHAPE, num_hidden_layers=2, sliding_window=24, query_pre_attn_scalar=16, attn_logit_softcapping=4.0,
        final_logit_softcapping=6.0, rope_parameters=PLAIN,
    )
    more = {"attention.sliding_window": 24, "attn_logit_softcapping": 4.0, "final_logit_softcapping": 6.0}
    make("gemma2", config, "gemma2", more, norm=0.0, norm_offset=1.0)


def gemma3():
    kinds = {
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 2.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }
    config = hf.Gemma3TextConfig(
        **SHAPE | {"num_key_value_heads": 1}, num_hidden_layers=6, sliding_window=24, query_pre_attn_scalar=16, rope_parameters=kinds,
    )
    rope = {"attention.sliding_window": 24, "rope.freq_base": 1e6, "rope.scaling.type": "linear", "rope.scaling.factor": 2.0}
    make("gemma3", config, "gemma3", rope, norm=0.0, norm_offset=1.0)


def phi3():
    short, long = longrope(12)
    config = hf.Phi3Config(
        **{k: v for k, v in SHAPE.items() if k != "head_dim"}, num_hidden_layers=2, sliding_window=24, partial_rotary_factor=0.75,
        original_max_position_embeddings=64,
        rope_parameters={
            "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": short, "long_factor": long, "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 64,
        },
    )
    config.head_dim = 16
    more = {
        "attention.sliding_window": 24, "rope.dimension_count": 12, "rope.freq_base": 10000.0, "rope.scaling.original_context_length": 64,
        "rope.scaling.attn_factor": math.sqrt(1 + math.log(4) / math.log(64)),
    }
    extra = {"rope_factors_short.weight": np.array(short), "rope_factors_long.weight": np.array(long)}
    make("phi3", config, "phi3", more, stepped=True, extra=extra)


def smollm3():
    config = hf.SmolLM3Config(**SHAPE, num_hidden_layers=4, rope_parameters=PLAIN)
    make("smollm3", config, "smollm3", {"rope.freq_base": 10000.0})


def granite():
    config = hf.GraniteConfig(
        **SHAPE, num_hidden_layers=2, rope_parameters=PLAIN, embedding_multiplier=6.0, attention_multiplier=0.11,
        residual_multiplier=0.4, logits_scaling=1.7, attention_bias=True,
    )
    more = {"embedding_scale": 6.0, "attention.scale": 0.11, "residual_scale": 0.4, "logit_scale": 1.7}
    make("granite", config, "granite", more)


def olmo2():
    config = hf.Olmo2Config(**SHAPE, num_hidden_layers=2, rope_parameters=PLAIN)
    make("olmo2", config, "olmo2")


def mixtral():
    config = hf.MixtralConfig(
        **SHAPE, num_hidden_layers=2, num_local_experts=4, num_experts_per_tok=2, rope_parameters=PLAIN, sliding_window=None
    )
    make("mixtral", config, "llama", {"expert_count": 4, "expert_used_count": 2})


def qwen3_moe():
    config = hf.Qwen3MoeConfig(
        **SHAPE, num_hidden_layers=3, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=32, norm_topk_prob=True,
        mlp_only_layers=[1], rope_parameters=PLAIN,
    )
    more = {"expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 32}
    make("qwen3-moe", config, "qwen3moe", more)


def mistral_window():
    config = hf.MistralConfig(**SHAPE, num_hidden_layers=2, sliding_window=24, rope_parameters=PLAIN)
    make("mistral-window", config, "llama", {"attention.sliding_window": 24})


def llama_long():
    rope = {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    config = hf.LlamaConfig(**SHAPE, num_hidden_layers=2, rope_parameters=rope)
    inverse = hf.models.llama.modeling_llama.LlamaRotaryEmbedding(config).inv_freq.numpy()
    plain = 1.0 / 10000.0 ** (np.arange(0, 16, 2, dtype=np.float32) / 16)
    make("llama-long", config, "llama", {"rope.freq_base": 10000.0}, extra={"rope_freqs.weight": plain / inverse})


def qwen2_long():
    config = hf.Qwen2Config(**SHAPE, num_hidden_layers=2, rope_parameters=PLAIN)
    make("qwen2-long", config, "qwen2", {"rope.freq_base": 10000.0})


def gpt2_long():
    config = hf.GPT2Config(n_embd=64, n_inner=96, n_layer=2, n_head=4, n_positions=256, bos_token_id=0, eos_token_id=0)
    make("gpt2-long", config)
    folder = OUT / "gpt2-long"
    values = {
        "general.name": "gpt2-long", "gpt2.block_count": 2, "gpt2.context_length": 256, "gpt2.embedding_length": 64,
        "gpt2.feed_forward_length": 96, "gpt2.attention.head_count": 4, "gpt2.attention.layer_norm_epsilon": 1e-5,
    }
    state = {key: tensor.float() for key, tensor in load_file(folder / "model.safetensors").items()}
    tokenizer = {"kind": "qwen2", "tokenizer": model_tokenizers.byte_level("qwen2", 300)}
    model_gguf.write(OUT / "gpt2-long.gguf", "gpt2", state, values, tokenizer, lambda name: Q.F16, None, None)


ALL = [qwen3, qwen2_window, gemma2, gemma3, phi3, smollm3, granite, olmo2, mixtral, qwen3_moe, mistral_window, llama_long, qwen2_long, gpt2_long]

if __name__ == "__main__":
    for function in ALL:
        if sys.argv[1:] and function.__name__ not in sys.argv[1:]:
            continue
        print(function.__name__, flush=True)
        function()
