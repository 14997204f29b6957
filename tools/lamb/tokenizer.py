#!/usr/bin/env python3
"""Trains lamb's tokenizer: byte-level BPE of 8,192 tokens with the family's pre-tokeniser pattern,
NFC, and the family's 33 added tokens behind the base vocabulary. As in the family, the last seven
stand in tokenizer_config.json only.

    tokenizer.py --docs docs.txt.xz --out FOLDER
"""
import argparse
import json
import os
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

BASE = 8192
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|"
           r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# in id order; those in PLAIN are single tokens but not special: decoding keeps them
ADDED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
         "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
         "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
         "<tool_response>", "</tool_response>", "<think>", "</think>", "<|audio_start|>", "<|audio_end|>", "<tts_pad>", "<tts_text_bos>",
         "<tts_text_eod>", "<tts_text_bos_single>", "<|audio_pad|>"]
PLAIN = {"<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"}
IN_TOKENIZER_JSON = 26


def added(text):
    return AddedToken(text, special=text not in PLAIN, normalized=False)


def train(texts):
    t = Tokenizer(models.BPE(ignore_merges=False))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel(add_prefix_space=False, use_regex=False)
    t.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    t.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=BASE, min_frequency=2, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    assert t.get_vocab_size() == BASE, t.get_vocab_size()
    t.add_tokens([added(x) for x in ADDED[:IN_TOKENIZER_JSON]])
    return t


def config():
    return {"add_bos_token": False, "add_prefix_space": False,
            "added_tokens_decoder": {str(BASE + i): {"content": x, "lstrip": False, "normalized": False, "rstrip": False,
                                                     "single_word": False, "special": x not in PLAIN} for i, x in enumerate(ADDED)},
            "bos_token": None, "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
            "model_max_length": 262144, "pad_token": "<|endoftext|>", "pretokenize_regex": PATTERN, "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer", "unk_token": None}


if __name__ == "__main__":
    import data
    import re
    p = argparse.ArgumentParser()
    p.add_argument("--docs", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--seed", type=int, default=7)
    a = p.parse_args()
    r = random.Random(a.seed)
    texts = [data.document(k, r, []) for k, n in (("story", 12000), ("chat", 20000)) for _ in range(n)]
    docs = data.read_docs(a.docs)[0]
    texts += r.sample(docs, min(len(docs), 1200))
    marks = re.compile("|".join(re.escape(x) for x in ADDED))
    tok = train(piece for text in texts for piece in marks.split(text))
    os.makedirs(a.out, exist_ok=True)
    tok.save(os.path.join(a.out, "tokenizer.json"))
    json.dump(config(), open(os.path.join(a.out, "tokenizer_config.json"), "w"), indent=2)
    for kind in ("story", "chat"):
        sample = [data.document(kind, r, []) for _ in range(500)]
        print(kind, sum(map(len, sample)) / sum(len(x.ids) for x in tok.encode_batch(sample)), "characters per token")
