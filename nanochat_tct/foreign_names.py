"""The names of our settings in other trainers (nanoGPT, nanochat, Hugging Face), for suggestions in messages."""

from collections.abc import Iterable

# Their names by ours. If one of theirs stands for several of ours, the first that the command has is suggested.
NAMES = {
    "context_size": "block_size n_ctx n_positions max_seq_len max_seq_length seq_len seq_length sequence_len "
    "sequence_length context_length context_len ctx_len max_position_embeddings model_max_length max_length",
    "batch_size": "device_batch_size per_device_train_batch_size per_device_eval_batch_size per_device_batch_size "
    "per_gpu_train_batch_size train_batch_size micro_batch_size mini_batch_size total_batch_size bs",
    "gradient_accumulation": "gradient_accumulation_steps grad_accum_steps grad_accum accumulate_grad_batches "
    "accumulation_steps grad_accumulation_steps",
    "max_iters": "max_steps num_iterations num_steps train_steps total_steps training_steps n_iters num_iters "
    "num_train_steps max_train_steps iterations num_train_epochs num_epochs max_epochs epochs",
    "learning_rate": "lr max_lr peak_lr base_lr matrix_lr embedding_lr unembedding_lr scalar_lr",
    "min_lr": "final_lr lr_min min_learning_rate lr_end eta_min",
    "warmup_iters": "warmup_steps num_warmup_steps lr_warmup_steps warmup warmup_ratio",
    "lr_decay_iters": "decay_lr lr_decay_steps decay_steps warmdown_ratio lr_scheduler_type lr_scheduler",
    "weight_decay": "wd",
    "beta1": "adam_beta1 betas",
    "beta2": "adam_beta2",
    "grad_clip": "max_grad_norm gradient_clip_val clip_grad clip_grad_norm grad_clip_norm max_norm",
    "optimizer": "optim",
    "dropout": "dropout_rate hidden_dropout_prob attention_dropout attention_probs_dropout_prob attn_pdrop "
    "resid_pdrop embd_pdrop",
    "n_layer": "num_hidden_layers n_layers num_layers layers depth",
    "n_head": "num_attention_heads n_heads num_heads heads",
    "n_embd": "hidden_size n_embed d_model dim embed_dim model_dim embedding_size n_hidden",
    "preset": "model_size model_type",
    "sizes": "n_layer n_embd preset",
    "eval_interval": "eval_steps eval_every val_interval evaluation_strategy eval_strategy val_every",
    "save_interval": "save_steps save_every checkpoint_interval always_save_checkpoint save_strategy",
    "log_interval": "logging_steps log_every",
    "eval_iters": "eval_batches val_steps eval_tokens",
    "keep_checkpoints": "save_total_limit",
    "max_tokens": "max_new_tokens max_length",
    "checkpoint": "out_dir output_dir ckpt ckpt_path checkpoint_path checkpoint_dir model model_path "
    "model_name_or_path",
    "checkpoint_dir": "out_dir output_dir output ckpt_dir save_dir",
    "output": "out_dir output_dir out checkpoint_dir",
    "data_dir": "dataset dataset_name data data_path data_root train_data train_file",
    "input": "dataset data data_dir data_path data_root train_file",
    "log_dir": "logging_dir tensorboard_dir",
    "resume": "resume_from_checkpoint resume_from init_from",
    "run_name": "run exp_name experiment_name",
    "use_gpu": "device device_type cuda no_cuda use_cpu use_cuda gpu",
    "device": "use_gpu device_type cuda",
    "precision": "dtype torch_dtype fp16 bf16 mixed_precision amp",
    "num_workers": "nproc_per_node num_gpus n_gpus gpus num_devices world_size num_processes",
    "parallel": "strategy fsdp ddp",
    "compile": "torch_compile compile_model",
    "checkpoint_activations": "gradient_checkpointing activation_checkpointing",
    "wandb": "wandb_log report_to use_wandb wandb_mode",
    "wandb_run_name": "wandb_name",
    "num_samples": "num_return_sequences n_samples",
    "prompt": "start",
    "top_p": "top_k",
    "train_split": "val_split validation_split val_ratio test_size train_ratio",
    "seed": "random_seed",
    "tokenizer": "tokenizer_name",
}
# Notes on settings that have another form or unit here.
NOTES = {
    "use_gpu": "true or false",
    "precision": "bf16 or fp32",
    "wandb": "auto, online, offline or off",
    "max_iters": "in iters",
    "warmup_iters": "in iters",
    "lr_decay_iters": "in iters",
    "gradient_accumulation": "micro-steps of each worker",
    "batch_size": "of each worker, in windows",
    "checkpoint_dir": "a run is a folder in it, named run_name",
    "data_dir": "a token store that prepare wrote",
}
# Settings that have no counterpart here and can be left out.
NOTHING = frozenset(
    "backend bias eval_only dataloader_num_workers dataloader_pin_memory pin_memory local_rank gpt2 "
    "remove_unused_columns overwrite_output_dir do_train do_eval ddp_find_unused_parameters "
    "attn_implementation n_kv_head num_key_value_heads target_param_data_ratio target_flops".split()
)


def ours(name: str, known: Iterable[str]) -> str | None:
    """The name among `known` for the setting `name` of another trainer; None if there is none."""
    return next((own for own in NAMES if own in known and name in NAMES[own].split()), None)


def is_theirs(name: str) -> bool:
    """Whether another trainer has a setting with this name."""
    return name in NOTHING or any(name in names.split() for names in NAMES.values())
