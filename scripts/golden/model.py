#!/usr/bin/env python3
"""Golden files of crates/model: small random checkpoints of every architecture with the logits that transformers
computes for them in f32, tokenizer ids, and logits of tiny-gpt2 and (given its GGUF) of SmolLM2.

    pip install -r scripts/golden/requirements.txt
    python scripts/golden/model.py [SmolLM2-135M-Instruct.Q4_1.gguf]
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType as Q
from gguf import GGUFReader, quants
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import model_gguf
import model_tokenizers
from model_tokenizers import REPOSITORY

OUT = REPOSITORY / "crates/model/tests/golden"
LENGTH = 40
"""Tokens of the sequence that logits are computed for."""
KEPT = [0, 1, 7, 19, LENGTH - 1]
"""Positions whose logits are kept whole."""

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def randomize(model, seed):
    """Weights that make attention and logits far from uniform; norms near one, biases near zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 2:
                parameter.copy_(noise * (2.0 / parameter.shape[-1] ** 0.5))
            else:
                parameter.copy_(noise * 0.2 + (0.0 if name.endswith("bias") else 1.0))
    return model.eval()


def logits(model, seed):
    """A random sequence and its logits `[position][vocabulary]`, in f32."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, model.config.vocab_size, (LENGTH,), generator=generator)
    with torch.no_grad():
        out = model.float()(tokens[None]).logits[0]
    return tokens, out


def save_expected(path, model, seed):
    tokens, out = logits(model, seed)
    positions = torch.tensor(KEPT)
    save_file(
        {
            "tokens": tokens.to(torch.int32),
            "positions": positions.to(torch.int32),
            "logits": out[positions].contiguous().float(),
        },
        path,
    )


def round_to(model, dtype):
    """What a checkpoint of this type holds."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype).float())


def save_folder(name, model, dtype, kind, tokenizer, template=None, shards=False):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    round_to(model, dtype)
    model.config.architectures = [type(model).__name__]
    config = model.config.to_dict()
    config.pop("transformers_version", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    state = {k: v.to(dtype).contiguous() for k, v in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight")
    if shards:
        names = sorted(state)
        files = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
        for file, members in files.items():
            save_file({n: state[n] for n in members}, folder / file)
        weight_map = {n: file for file, members in files.items() for n in members}
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
    else:
        save_file(state, folder / "model.safetensors")
    model_tokenizers.save(tokenizer, kind, folder, template)
    save_expected(folder / "expected.safetensors", model, 1)
    cases = model_tokenizers.expectations(folder)
    (folder / "tokens.json").write_text(json.dumps(cases, ensure_ascii=True, indent=0) + "\n")
    return folder


def save_gguf(name, arch, model, config, tokenizer, choose, rng=None, extra=None, chat=None):
    path = OUT / f"{name}.gguf"
    state = {k: v for k, v in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight")
    config = {"general.name": name, **config}
    if chat:
        config["tokenizer.chat_template"] = chat
    back = model_gguf.write(path, arch, state, config, tokenizer, choose, rng, extra)
    model.load_state_dict(back, strict=False)
    model.tie_weights()
    save_expected(OUT / f"{name}.expected.safetensors", model, 2)


def llama_metadata(arch, config, **more):
    return {
        f"{arch}.block_count": config.num_hidden_layers,
        f"{arch}.context_length": config.max_position_embeddings,
        f"{arch}.embedding_length": config.hidden_size,
        f"{arch}.feed_forward_length": config.intermediate_size,
        f"{arch}.attention.head_count": config.num_attention_heads,
        f"{arch}.attention.head_count_kv": config.num_key_value_heads,
        f"{arch}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{arch}.rope.freq_base": float(config.rope_parameters["rope_theta"]),
        **{f"{arch}.{key}": value for key, value in more.items()},
    }


def make_llama():
    spm, processor, tokens, scores, types = model_tokenizers.sentence_piece(700)
    tokenizer = {"kind": "llama", "tokenizer": spm, "tokens": tokens, "scores": scores, "types": types}
    common = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, vocab_size=len(tokens))
    config = LlamaConfig(
        **common, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, bos_token_id=1, eos_token_id=2,
    )
    model = randomize(LlamaForCausalLM(config), 11)
    save_folder("llama", model, torch.bfloat16, "llama", spm)
    kinds = dict(
        token_embd=Q.Q8_0, output=Q.Q5_1, attn_q=Q.Q4_0, attn_k=Q.Q4_1, attn_v=Q.Q5_0, attn_output=Q.Q5_1,
        ffn_gate=Q.Q8_0, ffn_up=Q.F16, ffn_down=Q.BF16,
    )
    save_gguf("llama", "llama", model, llama_metadata("llama", config), tokenizer, lambda n: kinds[n.split(".")[-2]])

    config = MistralConfig(
        **common | {"num_hidden_layers": 1}, num_attention_heads=4, num_key_value_heads=1, head_dim=32,
        max_position_embeddings=128, tie_word_embeddings=True, sliding_window=48, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
        rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
    )
    model = randomize(MistralForCausalLM(config), 12)
    save_folder("mistral", model, torch.float32, "llama", spm, shards=True)
    metadata = llama_metadata("llama", config)
    metadata |= {
        "llama.attention.key_length": 32, "llama.attention.value_length": 32, "llama.attention.sliding_window": 48,
        "llama.rope.dimension_count": 32, "llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0,
    }
    save_gguf("mistral", "llama", model, metadata, tokenizer, lambda n: Q.Q4_0)


def make_llama3():
    bpe = model_tokenizers.byte_level("llama-bpe", 640)
    config = LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, vocab_size=bpe.get_vocab_size(),
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=256, rms_norm_eps=1e-5,
        attention_bias=True, mlp_bias=True, tie_word_embeddings=True, bos_token_id=0, eos_token_id=[1, 2],
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        },
    )
    model = randomize(LlamaForCausalLM(config), 13)
    save_folder("llama3", model, torch.float16, "llama-bpe", bpe)
    inverse = model.model.rotary_emb.inv_freq.numpy()
    plain = 1.0 / 500000.0 ** (np.arange(0, 16, 2, dtype=np.float32) / 16)
    extra = {"rope_freqs.weight": (plain / inverse).astype(np.float32)}
    tokenizer = {"kind": "llama-bpe", "tokenizer": bpe}
    save_gguf("llama3", "llama", model, llama_metadata("llama", config), tokenizer, lambda n: Q.Q8_0, extra=extra)


def make_qwen2():
    bpe = model_tokenizers.byte_level("qwen2", 640)
    config = Qwen2Config(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, vocab_size=bpe.get_vocab_size(),
        num_attention_heads=6, num_key_value_heads=2, head_dim=16, max_position_embeddings=128, rms_norm_eps=1e-6,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=2, sliding_window=32, use_sliding_window=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    )
    model = randomize(Qwen2ForCausalLM(config), 14)
    save_folder("qwen2", model, torch.float16, "qwen2", bpe, CHATML)
    metadata = llama_metadata("qwen2", config) | {"qwen2.attention.key_length": 16, "qwen2.attention.value_length": 16}
    save_gguf("qwen2", "qwen2", model, metadata, {"kind": "qwen2", "tokenizer": bpe}, lambda n: Q.Q8_0, chat=CHATML)


def make_gpt2():
    bpe = model_tokenizers.byte_level("gpt-2", 512)
    config = GPT2Config(
        n_embd=64, n_inner=160, n_layer=2, n_head=4, n_positions=64, vocab_size=bpe.get_vocab_size(),
        bos_token_id=0, eos_token_id=0,
    )
    model = randomize(GPT2LMHeadModel(config), 15)
    save_folder("gpt2", model, torch.float16, "gpt-2", bpe)
    metadata = {
        "gpt2.block_count": 2, "gpt2.context_length": 64, "gpt2.embedding_length": 64,
        "gpt2.feed_forward_length": 160, "gpt2.attention.head_count": 4, "gpt2.attention.layer_norm_epsilon": 1e-5,
    }
    kinds = dict(token_embd=Q.F16, position_embd=Q.F32, attn_qkv=Q.Q5_1, attn_output=Q.Q8_0, ffn_up=Q.Q4_1, ffn_down=Q.BF16)
    save_gguf("gpt2", "gpt2", model, metadata, {"kind": "gpt-2", "tokenizer": bpe}, lambda n: kinds[n.split(".")[-2]])


def make_k_quants():
    """Hidden size 256, so that K-quant blocks fit; the pre-tokenizer is SmolLM's."""
    bpe = model_tokenizers.byte_level("smollm", 512)
    config = LlamaConfig(
        hidden_size=256, intermediate_size=256, num_hidden_layers=1, vocab_size=bpe.get_vocab_size(),
        num_attention_heads=4, num_key_value_heads=1, max_position_embeddings=128, rms_norm_eps=1e-5,
        tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    model = randomize(LlamaForCausalLM(config), 16)
    kinds = dict(
        token_embd=Q.Q4_0, attn_q=Q.Q2_K, attn_k=Q.Q3_K, attn_v=Q.Q6_K, attn_output=Q.Q4_K, ffn_gate=Q.Q5_K,
        ffn_up=Q.Q4_K, ffn_down=Q.Q6_K,
    )
    tokenizer = {"kind": "smollm", "tokenizer": bpe}
    rng = np.random.default_rng(16)
    metadata = llama_metadata("llama", config)
    save_gguf("k-quants", "llama", model, metadata, tokenizer, lambda n: kinds[n.split(".")[-2]], rng, chat=CHATML)
    scratch = OUT / "scratch"
    scratch.mkdir(exist_ok=True)
    (scratch / "config.json").write_text('{"model_type": "llama"}')
    model_tokenizers.save(bpe, "smollm", scratch)
    cases = model_tokenizers.expectations(scratch)
    (OUT / "k-quants.tokens.json").write_text(json.dumps(cases, ensure_ascii=True, indent=0) + "\n")
    shutil.rmtree(scratch)


def text_tokens(tokenizer, count):
    text = (REPOSITORY / "data/persuasion.txt").read_text("utf-8")
    return tokenizer.encode(text[20_000:40_000]).ids[:count]


def save_text_expected(name, model, tokens, whole):
    """Logits of text: `whole` positions entirely, all others by 16 logits and the log of the sum of exponentials."""
    with torch.no_grad():
        out = model.float()(torch.tensor([tokens])).logits[0]
    generator = torch.Generator().manual_seed(3)
    columns = torch.randperm(out.shape[1], generator=generator)[:16].sort().values
    save_file(
        {
            "tokens": torch.tensor(tokens, dtype=torch.int32),
            "positions": torch.tensor(whole, dtype=torch.int32),
            "logits": out[whole].contiguous().float(),
            "columns": columns.to(torch.int32),
            "sampled": out[:, columns].contiguous().float(),
            "log_sum_exp": out.double().logsumexp(-1).float(),
        },
        OUT / f"{name}.expected.safetensors",
    )


def make_tiny_gpt2():
    folder = REPOSITORY / "models/tiny-gpt2"
    cases = model_tokenizers.expectations(folder)
    (OUT / "tiny-gpt2.tokens.json").write_text(json.dumps(cases, ensure_ascii=True, indent=0) + "\n")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = text_tokens(Tokenizer.from_file(str(folder / "tokenizer.json")), 600)
    save_text_expected("tiny-gpt2", model, tokens, [0, 5, 511, 512, 599])


def smollm2_tokenizer(fields):
    """The tokenizer as SmolLM2's own tokenizer.json composes it."""
    tokens, merges = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "merges"))
    types = fields["tokenizer.ggml.token_type"].contents()
    inner = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges]))
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([t for t, kind in zip(tokens, types) if kind == 3])
    return inner


def make_smollm2(path):
    reader = GGUFReader(path)
    tokenizer = smollm2_tokenizer(reader.fields)
    scratch = OUT / "scratch"
    scratch.mkdir(exist_ok=True)
    (scratch / "config.json").write_text('{"model_type": "llama"}')
    model_tokenizers.save(tokenizer, "smollm", scratch)
    cases = model_tokenizers.expectations(scratch)
    (OUT / "smollm2.tokens.json").write_text(json.dumps(cases, ensure_ascii=True, indent=0) + "\n")
    shutil.rmtree(scratch)
    config = LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, vocab_size=49152, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    )
    model = LlamaForCausalLM(config)
    hub = {v: k for k, v in model_gguf.LLAMA_NAMES.items()}
    state = {}
    for tensor in reader.tensors:
        array = quants.dequantize(tensor.data, tensor.tensor_type)
        name = tensor.name
        part = name.split(".")[-2]
        if part in ("attn_q", "attn_k"):
            heads = 9 if part == "attn_q" else 3
            array = array.reshape(heads, 32, 2, 576).swapaxes(1, 2).reshape(-1, 576)
        name = name.replace("blk.", "model.layers.").replace(part, hub[part])
        state[name] = torch.from_numpy(np.array(array))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected, (missing, unexpected)
    model.tie_weights()
    save_text_expected("smollm2", model.eval(), text_tokens(tokenizer, 300), [299])


def main():
    torch.set_num_threads(2)
    OUT.mkdir(parents=True, exist_ok=True)
    make_llama()
    make_llama3()
    make_qwen2()
    make_gpt2()
    make_k_quants()
    make_tiny_gpt2()
    if len(sys.argv) > 1:
        make_smollm2(sys.argv[1])
    for path in OUT.rglob("*.safetensors"):
        path.chmod(0o644)


if __name__ == "__main__":
    main()
