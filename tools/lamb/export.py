#!/usr/bin/env python3
"""Writes the checkpoint of train.py as a Hugging Face folder in BF16.

    export.py --checkpoint run2/checkpoint.pt --out FOLDER      (the tokenizer is there already)
"""
import argparse
import json
import os

import torch
from safetensors.torch import save_file

import model as lamb
import tokenizer as tk


def config(c):
    ids = {x: tk.BASE + i for i, x in enumerate(tk.ADDED)}
    end = ids["<|endoftext|>"]
    text = {
        "attention_bias": False, "attention_dropout": 0.0, "attn_output_gate": True, "bos_token_id": end, "dtype": "bfloat16",
        "eos_token_id": end, "full_attention_interval": c.interval, "head_dim": c.head_dim, "hidden_act": "silu",
        "hidden_size": c.hidden, "initializer_range": 0.02, "intermediate_size": c.mlp,
        "layer_types": ["full_attention" if c.is_full(i) else "linear_attention" for i in range(c.layers)],
        "linear_conv_kernel_dim": c.conv, "linear_key_head_dim": c.linear_dim, "linear_num_key_heads": c.key_heads,
        "linear_num_value_heads": c.value_heads, "linear_value_head_dim": c.linear_dim, "mamba_ssm_dtype": "float32",
        "max_position_embeddings": 32768, "model_type": "qwen3_5_text", "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False, "num_attention_heads": c.heads, "num_hidden_layers": c.layers,
        "num_key_value_heads": c.kv_heads, "output_gate_type": "swish", "pad_token_id": None, "partial_rotary_factor": 0.25,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"mrope_interleaved": True, "mrope_section": [11, 11, 10], "partial_rotary_factor": 0.25,
                            "rope_theta": 10000000, "rope_type": "default"},
        "tie_word_embeddings": True, "use_cache": True, "vocab_size": c.vocab_size}
    return {"architectures": ["Qwen3_5ForConditionalGeneration"], "dtype": "bfloat16", "image_token_id": ids["<|image_pad|>"],
            "language_model_only": True, "model_type": "qwen3_5", "text_config": text, "tie_word_embeddings": True,
            "video_token_id": ids["<|video_pad|>"], "vision_end_token_id": ids["<|vision_end|>"], "vision_start_token_id": ids["<|vision_start|>"]}


def generation():
    ids = {x: tk.BASE + i for i, x in enumerate(tk.ADDED)}
    return {"bos_token_id": ids["<|endoftext|>"], "do_sample": True, "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
            "pad_token_id": ids["<|endoftext|>"], "temperature": 1.0, "top_k": 20, "top_p": 0.95}


def write(folder, state, c):
    os.makedirs(folder, exist_ok=True)
    tensors = {k: v.to(torch.bfloat16).contiguous() for k, v in state.items()}
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    for name, value in (("config.json", config(c)), ("generation_config.json", generation())):
        with open(os.path.join(folder, name), "w") as f:
            f.write(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--checkpoint", required=True)
    p.add_argument("--out", required=True)
    a = p.parse_args()
    write(a.out, torch.load(a.checkpoint, map_location="cpu"), lamb.Config())
