"""The named model sizes."""

from nanochat_tct.model.gpt import GPTConfig

PRESETS: dict[str, GPTConfig] = {
    # 2 million parameters, most of them in embedding and head; learns something in minutes on two CPU cores.
    "demo": GPTConfig(context_size=256, n_layer=4, n_head=3, n_embd=96),
    "baseline": GPTConfig(context_size=512, n_layer=6, n_head=6, n_embd=384),
    "small": GPTConfig(context_size=512, n_layer=6, n_head=8, n_embd=512),
    "medium": GPTConfig(context_size=1024, n_layer=8, n_head=12, n_embd=768),
    "large": GPTConfig(context_size=1024, n_layer=12, n_head=16, n_embd=1024),
}
