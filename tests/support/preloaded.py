"""Imported once by the server that processes are forked from (`workers.PRELOADED`): what each would do for itself."""

import pyarrow
import torch
import torch._dynamo  # by an optimizer, at its first step

import nanochat_tct.tuning.tune  # noqa: F401
import tests.support.workers  # noqa: F401
from nanochat_tct.tokenizer import load_tokenizer
from nanochat_tct.training.speed import peak_of

pyarrow.array(["imports pandas"])
torch.set_num_threads(1)
peak_of(torch.device("cpu"))
load_tokenizer()
