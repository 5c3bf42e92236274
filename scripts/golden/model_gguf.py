"""GGUF files of the small checkpoints, and their weights as torch sees them after dequantization."""

import numpy as np
import torch
from gguf import GGMLQuantizationType as Q
from gguf import GGUFWriter, quants

import model_tokenizers

LLAMA_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.layers": "blk",
}
GPT2_NAMES = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "transformer.h": "blk",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def gguf_name(name, table):
    for hub, short in table.items():
        name = name.replace(hub, short)
    return name


def interleave(rows, heads):
    """The order in which GGUF keeps the rows of Llama's Q and K: [head][half][pair] to [head][pair][half]."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def k_quant_blocks(shape, kind, rng):
    """Random K-quant blocks with scales of moderate size; the package cannot make them from weights."""
    length, size = {Q.Q2_K: (256, 84), Q.Q3_K: (256, 110), Q.Q4_K: (256, 144), Q.Q5_K: (256, 176), Q.Q6_K: (256, 210)}[kind]
    blocks = rng.integers(0, 256, size=(shape[0], shape[1] // length, size), dtype=np.uint8)

    def put(at, value):
        blocks[:, :, at : at + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)

    # Scales that give weights of standard deviation near 0.06; minima near the middle of the codes.
    if kind == Q.Q2_K:
        put(80, 0.01), put(82, 0.015)
    elif kind == Q.Q3_K:
        put(108, 0.0015)
    elif kind == Q.Q4_K:
        put(0, 0.00045), put(2, 0.0035)
    elif kind == Q.Q5_K:
        put(0, 0.00022), put(2, 0.0035)
    else:
        put(208, 0.00005)
    return blocks.reshape(shape[0], -1)


def write(path, arch, state, config, tokenizer, choose, rng=None, extra=None):
    """Writes `state` (names and orders of transformers) and returns it as the file now has it, in f32.

    `choose(name)` is the quantization of a matrix; vectors stay f32.
    """
    writer = GGUFWriter(path, arch)
    for key, value in config.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_string(key, value)
    add_tokenizer(writer, tokenizer)
    heads = {"attn_q": config.get(f"{arch}.attention.head_count"), "attn_k": config.get(f"{arch}.attention.head_count_kv")}
    as_read = {}
    for hub_name, tensor in state.items():
        name = gguf_name(hub_name, GPT2_NAMES if arch == "gpt2" else LLAMA_NAMES)
        array = tensor.to(torch.float32).numpy()
        conv1d = arch == "gpt2" and array.ndim == 2 and ".c_" in hub_name
        if conv1d:
            array = array.T
        part = name.split(".")[-2]
        permuted = arch == "llama" and part in heads
        if permuted:
            array = interleave(array, heads[part])
        array = np.ascontiguousarray(array)
        kind = choose(name) if array.ndim == 2 else Q.F32
        if kind == Q.F32:
            data, back = array, array
        elif kind in (Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K):
            data = k_quant_blocks(array.shape, kind, rng)
            back = quants.dequantize(data, kind)
        else:
            data = quants.quantize(array, kind)
            back = quants.dequantize(data, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
        back = back.reshape(array.shape)
        if permuted:
            heads_here = heads[part]
            # The inverse: [head][pair][half] to [head][half][pair].
            back = back.reshape(heads_here, back.shape[0] // heads_here // 2, 2, *back.shape[1:]).swapaxes(1, 2)
            back = back.reshape(array.shape)
        as_read[hub_name] = torch.from_numpy(np.array(back.T if conv1d else back, dtype=np.float32))
    for name, array in (extra or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return as_read


def add_tokenizer(writer, tokenizer):
    kind = tokenizer["kind"]
    inner = tokenizer["tokenizer"]
    if kind == "llama":
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(tokenizer["tokens"])
        writer.add_token_scores(tokenizer["scores"])
        writer.add_token_types(tokenizer["types"])
        writer.add_unk_token_id(0)
    elif kind in ("t5", "unigram"):
        writer.add_tokenizer_model("t5")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(tokenizer["tokens"])
        writer.add_token_scores(tokenizer["scores"])
        writer.add_token_types(tokenizer["types"])
        writer.add_unk_token_id(tokenizer["unknown"])
        writer.add_add_space_prefix(True)
        writer.add_remove_extra_whitespaces(tokenizer["collapse"])
        if tokenizer["charsmap"]:
            writer.add_precompiled_charsmap(tokenizer["charsmap"])
        writer.add_add_bos_token(kind == "unigram")
        writer.add_add_eos_token(kind == "t5")
    else:
        tokens = model_tokenizers.tokens_of(inner)
        special = set(model_tokenizers.SPECIAL[kind])
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(kind)
        writer.add_token_list(tokens)
        writer.add_token_types([3 if token in special else 1 for token in tokens])
        writer.add_token_merges(model_tokenizers.merges_of(inner))
    begin, end = model_tokenizers.BEGIN_END[kind]
    if begin:
        writer.add_bos_token_id(inner.token_to_id(begin))
    writer.add_eos_token_id(inner.token_to_id(end))
    if kind == "smollm":
        writer.add_add_bos_token(False)
