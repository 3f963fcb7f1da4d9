"""Writes the metrics of a run to the terminal, metrics.jsonl, TensorBoard and W&B."""

import json
import netrc
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nanochat_tct.errors import UserError
from nanochat_tct.storage.files import write_atomic
from nanochat_tct.tracking.line import evaluation_line, log_line

METRICS = "metrics.jsonl"
QUALITY = "bits_per_byte"  # the metric by which runs are compared
# The settings that every sweep varies, the most important ones first.
DIFFERING = ("learning_rate", "n_embd", "n_layer", "max_iters", "weight_decay")
SHOWN_AT_FIRST = 5  # columns of TensorBoard's HParams page, which shows settings marked as differing
HYPERPARAMETERS = (*DIFFERING, "batch_size", "beta1", "beta2", "dropout", "grad_clip", "optimizer", "seed")


class Tracker:
    """Writes the metrics of iters and evaluations to every sink that is enabled."""

    def __init__(
        self,
        run_dir: Path,
        log_dir: Path | None = None,
        say: Callable[[str], None] = print,
        config: Mapping[str, Any] = MappingProxyType({}),
        first_iter: int = 0,
        varied: Mapping[str, Any] | None = None,
    ) -> None:
        """Args:
        run_dir: for metrics.jsonl, from which entries after first_iter are removed.
        log_dir: for the TensorBoard events and W&B's folder.
        say: prints a line.
        config: the run's settings. `tensorboard` and `wandb` (online, offline or off; `wandb_mode` resolves "auto")
            choose sinks. W&B shows all of them, and TensorBoard the hyperparameters, so it must hold no secrets.
        first_iter: iters done before, if the run is resumed.
        varied: other settings that a sweep varies, with this run's values; TensorBoard shows them first.
        """
        self.say = say
        run_dir.mkdir(parents=True, exist_ok=True)
        path = run_dir / METRICS
        kept = [entry for entry in read_metrics(run_dir) if entry["iter"] <= first_iter] if first_iter else []
        write_atomic(path, "".join(json.dumps(entry) + "\n" for entry in kept), sync=False)
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 (closed by close)
        self._board: Any = None
        self._wandb: Any = None
        if config.get("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            assert log_dir is not None
            self._board = SummaryWriter(str(log_dir), purge_step=first_iter + 1 if first_iter else None)
            self._write_hyperparameters(config, varied or {})
        if config.get("wandb", "off") != "off":
            assert log_dir is not None
            self._wandb = _start_wandb(run_dir, log_dir, config)

    def iteration(self, metrics: dict[str, Any]) -> None:
        """`iter loss lr grad_norm tokens_per_second mfu cost_usd eta_seconds skipped_iters`."""
        self.say(log_line(metrics))
        self._record("train", metrics)

    def evaluation(self, metrics: dict[str, Any]) -> None:
        """`iter bits_per_byte loss perplexity is_best`."""
        self.say(evaluation_line(metrics))
        self._record("validation", metrics)

    def _write_hyperparameters(self, config: Mapping[str, Any], varied: Mapping[str, Any]) -> None:
        """Write hyperparameters for TensorBoard's HParams page, which shows them beside the bits per byte.

        `SummaryWriter.add_hparams` would show each run as two, so this writes its parts.
        """
        from tensorboard.plugins.hparams.plugin_data_pb2 import (  # type: ignore[import-untyped]
            HParamsPluginData,
        )
        from torch.utils.tensorboard.summary import hparams

        shown = {
            name: value
            for name in (*HYPERPARAMETERS, *varied)
            if isinstance(value := {**config, **varied}.get(name), int | float | str)
        }
        at_first = list(dict.fromkeys([DIFFERING[0], *varied, *DIFFERING]))[:SHOWN_AT_FIRST]
        if not shown:
            return
        experiment, *session = hparams(shown, {f"validation/{QUALITY}": 0.0})
        plugin = experiment.value[0].metadata.plugin_data
        data = HParamsPluginData.FromString(plugin.content)
        for info in data.experiment.hparam_infos:
            info.differs = info.name in at_first
        plugin.content = data.SerializeToString()
        for summary in (experiment, *session):
            self._board.file_writer.add_summary(summary)

    def _record(self, kind: str, metrics: dict[str, Any]) -> None:
        self._file.write(json.dumps({"kind": kind, **metrics}) + "\n")
        scalars = {
            f"{kind}/{name}": value
            for name, value in metrics.items()
            if name != "iter" and not isinstance(value, str)
        }
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(name, float(value), metrics["iter"])
        if self._wandb is not None:
            self._wandb.log({"iter": metrics["iter"], **scalars})

    def close(self) -> None:
        """Flush and close every sink."""
        self._file.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The entries of metrics.jsonl, without an incomplete last line of a killed run."""
    path = Path(run_dir) / METRICS
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line.endswith("}")]


def wandb_mode(choice: str) -> str:
    """Resolve a choice to `online`, `offline` or `off`: `auto` is $WANDB_MODE if set, else online if logged in."""
    if choice != "auto":
        return choice
    wanted = os.environ.get("WANDB_MODE", "").lower()
    if wanted in ("disabled", "dryrun", "offline", "online"):
        return {"disabled": "off", "dryrun": "offline"}.get(wanted, wanted)
    return "online" if _is_logged_in() else "offline"


def _is_logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    for name in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        path = Path(name).expanduser() if name else None
        if path is not None and path.is_file():
            try:
                return netrc.netrc(path).authenticators(host) is not None
            except (netrc.NetrcParseError, OSError):
                return False
    return False


def _start_wandb(run_dir: Path, log_dir: Path, config: Mapping[str, Any]) -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else W&B sends reports of its own crashes
    import wandb

    id_file = run_dir / "wandb_id"  # so that W&B shows a resumed run as one run
    if not id_file.exists():
        id_file.write_text(uuid.uuid4().hex[:8])
    run_id = id_file.read_text()
    log_dir.mkdir(parents=True, exist_ok=True)
    mode = config["wandb"]
    # Only our own metrics leave the process: no console output, no data about the machine, no code.
    settings = wandb.Settings(
        console="off", silent=mode == "offline", x_disable_meta=True, disable_git=True, save_code=False
    )
    try:
        run = wandb.init(
            project=config["wandb_project"],
            name=config["wandb_run_name"],
            id=run_id,
            resume="allow" if mode == "online" else None,
            dir=str(log_dir),
            mode="online" if mode == "online" else "offline",
            config=dict(config),
            settings=settings,
        )
    except wandb.Error as error:
        if mode == "online":
            reason = str(error).splitlines()[0]
            raise UserError(f"W&B: {reason}; log in again, or use --wandb offline or off") from error
        raise
    run.define_metric("*", step_metric="iter")
    return run
