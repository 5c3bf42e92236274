#!/usr/bin/env python3
"""What transformers makes of 256 tokens of a novel with the dequantized weights of real GGUF files, in f32: the top token
at each position and the negative log-likelihood of the next one.

    pip install -r scripts/golden/requirements.txt
    sketchkv pull gemma3-270m; sketchkv pull qwen2.5-coder-0.5b; ...
    python scripts/golden/real.py NAME FILE.gguf SKETCHKV

SKETCHKV is the binary, which tells the tokens: transformers 5.2 converts the tokenizer of Gemma's file wrongly.
"""

import json
import subprocess
import sys

import numpy as np
import torch
import transformers as hf
from gguf import GGUFReader, quants
from safetensors.torch import save_file

import architectures
from model import OUT
from model_tokenizers import REPOSITORY

LENGTH = 256


def config_of(fields, vocabulary):
    arch = fields["general.architecture"].contents()

    def value(key, usual=None):
        field = fields.get(f"{arch}.{key}")
        return usual if field is None else field.contents()

    common = dict(
        hidden_size=value("embedding_length"), intermediate_size=value("feed_forward_length"), num_hidden_layers=value("block_count"),
        num_attention_heads=value("attention.head_count"), num_key_value_heads=value("attention.head_count_kv"),
        max_position_embeddings=value("context_length"), rms_norm_eps=value("attention.layer_norm_rms_epsilon"), vocab_size=vocabulary,
    )
    base = value("rope.freq_base", 10000.0)
    if arch == "gemma3":
        kinds = {
            "full_attention": {"rope_type": "default", "rope_theta": base},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        }
        head_dim = value("attention.key_length")
        return hf.Gemma3TextConfig(
            **common, head_dim=head_dim, query_pre_attn_scalar=head_dim, sliding_window=value("attention.sliding_window"),
            rope_parameters=kinds, tie_word_embeddings=True,
        )
    kind = {"qwen2": hf.Qwen2Config, "llama": hf.LlamaConfig}[arch]
    return kind(**common, rope_parameters={"rope_type": "default", "rope_theta": base}, tie_word_embeddings=False)


def unpermuted(array, heads):
    """Rows of q or k of a Llama in GGUF, which rotates neighbours, as transformers has them, which rotates halves."""
    rows, cols = array.shape
    return array.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


def weights(reader, arch, heads):
    has_post_norm = arch == "gemma3"
    table = architectures.NAMES | {"post_attention_layernorm": "post_attention_norm" if has_post_norm else "ffn_norm"}
    # The longest first, for some are the beginning of others.
    hub = {short: name for name, short in table.items() if "." not in short and name != "mlp.gate_up_proj"}
    if not has_post_norm:
        hub["ffn_norm"] = "post_attention_layernorm"
    state = {}
    for tensor in reader.tensors:
        array = np.array(quants.dequantize(tensor.data, tensor.tensor_type))
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            name = f"model.layers.{parts[1]}.{hub[parts[2]]}.{parts[3]}"
        else:
            name = f"{hub[parts[0]]}.{parts[1]}"
        # The converter adds 1 to Gemma's norms.
        if has_post_norm and "norm" in parts[-2]:
            array = array - 1.0
        array = array.reshape([int(n) for n in reversed(tensor.shape)])
        if arch == "llama" and parts[-2] in heads:
            array = unpermuted(array, heads[parts[-2]]).copy()
        state[name] = torch.from_numpy(array)
    return state


def main(name, path, sketchkv):
    reader = GGUFReader(path)
    arch = reader.fields["general.architecture"].contents()
    count = {"attn_q": "head_count", "attn_k": "head_count_kv"}
    heads = {name: reader.fields[f"{arch}.attention.{key}"].contents() for name, key in count.items()}
    state = weights(reader, arch, heads)
    config = config_of(reader.fields, state["model.embed_tokens.weight"].shape[0])
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected, (missing, unexpected)
    if "lm_head.weight" not in state:
        model.lm_head.weight = model.model.embed_tokens.weight
    text = (REPOSITORY / "data/persuasion.txt").read_text("utf-8")[20_000:40_000]
    said = subprocess.run(
        [sketchkv, "tokenize", "-m", path, "--literal", "--json"], input=text, text=True, stdout=subprocess.PIPE, check=True
    )
    ids = [token["id"] for token in json.loads(said.stdout)["tokens"]][: LENGTH - 1]
    # Gemma is lost without the token that begins a text.
    first = reader.fields["tokenizer.ggml.bos_token_id"].contents()
    ids = torch.tensor([first] + ids)
    with torch.no_grad():
        logits = model.eval().float()(ids[None], use_cache=False).logits[0]
    losses = -logits.log_softmax(-1)[torch.arange(LENGTH - 1), ids[1:]]
    print(name, "perplexity", losses.mean().exp().item())
    out = {"tokens": ids.to(torch.int32), "top": logits.argmax(-1).to(torch.int32), "losses": losses.contiguous().float()}
    save_file(out, OUT / f"{name}.real.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
