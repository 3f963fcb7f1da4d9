"""The lines that training prints."""

from typing import Any


def log_line(metrics: dict[str, Any]) -> str:
    """The line of an iter, such as

        iter 100 | loss 5.234 | lr 0.000030 | grad_norm 0.87 | tokens/sec 15000 | mfu 41.2% | cost $0.42 |
        eta 0:12:30

    (without the line break).

    Args:
        metrics: `iter loss lr grad_norm tokens_per_second mfu (a fraction) cost_usd eta_seconds`.
    """
    return (
        f"iter {metrics['iter']} | loss {metrics['loss']:.3f} | lr {metrics['lr']:.6f} | "
        f"grad_norm {metrics['grad_norm']:.2f} | tokens/sec {metrics['tokens_per_second']:.0f} | "
        f"mfu {100 * metrics['mfu']:.1f}% | cost ${metrics['cost_usd']:.2f} | "
        f"eta {duration(metrics['eta_seconds'])}"
    )


def evaluation_line(metrics: dict[str, Any]) -> str:
    """The line of an evaluation: `eval 100 | bits per byte 0.8123 | loss 4.321 | perplexity 75.3 | best`."""
    return (
        f"eval {metrics['iter']} | bits per byte {metrics['bits_per_byte']:.4f} | "
        f"loss {metrics['loss']:.3f} | perplexity {metrics['perplexity']:.1f}"
        + (" | best" if metrics.get("is_best") else "")
    )


def duration(seconds: float) -> str:
    """Format seconds as hours, minutes and seconds: `0:12:30`."""
    whole = round(max(0.0, seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
