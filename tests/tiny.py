"""A two-layer Llama with tokenizer and chat template, made in a moment and without torch.

It writes words at random and, unless told otherwise, ends its turn after some twenty of them. Its vocabulary
has every byte, so that any text can be read; it writes bytes beyond ASCII now and then.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CONTEXT_TOKENS = 2048
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = (
    "the a is of and to in it you that he was for on are with as they at be this have from or one had by word but not "
    "what all were we when your can said there use an each which she do how their if will up other about out many then "
    "them these so some her would make like him into time has look two more write go see number no way could people"
)
WORDS = TEXT.split()
HIDDEN, HEADS, KEY_HEADS, LAYERS, INNER = 64, 4, 2, 2, 128


def build(
    folder: Path,
    *,
    stops: bool = True,
    seed: int = 0,
    template: str = CHAT_TEMPLATE,
    tokens: Sequence[str] = (),
    special_tokens: Sequence[str] = (),
) -> Path:
    """Write the model into `folder`, which is made, and return it.

    With `stops` False no token ends its turn, so that every text has max_new_tokens. `tokens` are added to its
    vocabulary, the special ones as such that are left out of what it says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(tokens, special_tokens)
    tokenizer.save(str(folder / "tokenizer.json"))
    end = tokenizer.token_to_id("<|im_end|>")
    special = {"bos_token": "<|im_start|>", "pad_token": "<|endoftext|>"}
    if stops:
        special["eos_token"] = "<|im_end|>"
    _write(folder / "tokenizer_config.json", special | {"tokenizer_class": "PreTrainedTokenizerFast"})
    (folder / "chat_template.jinja").write_text(template)
    size = tokenizer.get_vocab_size()
    _write(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "dtype": "float32",
            "hidden_size": HIDDEN,
            "intermediate_size": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KEY_HEADS,
            "max_position_embeddings": CONTEXT_TOKENS,
            "vocab_size": size,
            "tie_word_embeddings": False,
            "eos_token_id": end if stops else None,
        },
    )
    _write(folder / "generation_config.json", {"eos_token_id": end if stops else None, "pad_token_id": 0})
    words = [tokenizer.token_to_id(f"Ġ{word}") for word in WORDS]
    save_file(_weights(size, words, end if stops else None, seed), folder / "model.safetensors", {"format": "pt"})
    return folder


def _tokenizer(tokens: Sequence[str], special_tokens: Sequence[str]) -> Tokenizer:
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *special_tokens]
    pieces = specials + list(tokens) + sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = []
    for word in WORDS:
        built = "Ġ"
        for letter in word:
            merges.append((built, letter))
            built += letter
            pieces.append(built)
    unique = list(dict.fromkeys(pieces))
    vocabulary = {piece: number for number, piece in enumerate(unique)}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(dict.fromkeys(merges))))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in tokens])
    return tokenizer


def _weights(size: int, words: list[int], end: int | None, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)

    def drawn(*shape: int, spread: float = 0.2) -> np.ndarray:
        return random.normal(0, spread, shape).astype(np.float32)

    # The last norm gives the head vectors of length 8: words get logits of spread 3, all else gets 0.
    head = np.zeros((size, HIDDEN), np.float32)
    head[words] = drawn(len(words), HIDDEN, spread=3 / HIDDEN**0.5)
    if end is not None:
        head[end] = drawn(HIDDEN, spread=5 / HIDDEN**0.5)
    weights = {
        "model.embed_tokens.weight": drawn(size, HIDDEN, spread=1),
        "model.norm.weight": np.ones(HIDDEN, np.float32),
        "lm_head.weight": head,
    }
    keys = HIDDEN // HEADS * KEY_HEADS
    shapes = {
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.k_proj": (keys, HIDDEN),
        "self_attn.v_proj": (keys, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN),
        "mlp.gate_proj": (INNER, HIDDEN),
        "mlp.up_proj": (INNER, HIDDEN),
        "mlp.down_proj": (HIDDEN, INNER),
    }
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        weights |= {f"{prefix}{name}.weight": drawn(*shape) for name, shape in shapes.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}{norm}.weight"] = np.ones(HIDDEN, np.float32)
    return weights


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2))
