"""Pre-train a small language model on a text file, bytes as tokens, and let it write.

    python examples/06_pretrain_from_text.py book.txt    # UTF-8 text, documents separated by blank lines
    python examples/06_pretrain_from_text.py             # this project's own documentation
    python examples/06_pretrain_from_text.py --toy       # the same, at a size that runs in seconds and writes noise

The model is a Hugging Face folder that `transformers`, `trilaw eval` and every stage of a recipe take.
"""

import json
import sys
from pathlib import Path
from typing import Any

import trilaw


def text_file() -> Path:
    """The file that was asked for, or the documentation in one file."""
    if given := [word for word in sys.argv[1:] if word != "--toy"]:
        return Path(given[0])
    pages = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))
    path = Path("runs/docs.txt")
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n\n".join(page.read_text(encoding="utf-8") for page in pages), encoding="utf-8")
    return path


def main() -> None:
    toy = "--toy" in sys.argv
    size: dict[str, Any] = (
        {"hidden": 16, "layers": 1, "heads": 2, "tokens": 8192} if toy else {"hidden": 192, "tokens": 2_000_000}
    )
    summary = trilaw.pretrain(data=text_file(), out="runs/toy-text" if toy else "runs/text", evaluate_every=200, **size)

    for line in (summary.folder / "events.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "valid_loss" in row:
            print(f"{row['tokens']:>9,} bytes  validation loss {row['valid_loss']:.3f} nats a byte")

    model = trilaw.load(summary.folder)
    for sample in model.sample("# Run", n=2, temperature=0.7, max_tokens=60 if toy else 240):
        print(f"\n# Run{sample.text}")


if __name__ == "__main__":
    main()
