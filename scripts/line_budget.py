"""The line budget: one concept a file. Over 300 lines is worth a thought, over 500 fails."""

import sys
from pathlib import Path

SOFT, HARD = 300, 500
root = Path(__file__).parent.parent
lengths = {path.relative_to(root): len(path.read_text().splitlines()) for path in sorted((root / "src").rglob("*.py"))}
for path, lines in lengths.items():
    if lines > SOFT:
        print(
            f"{path}: {lines} lines ({'over the limit of' if lines > HARD else 'soft limit'} {HARD if lines > HARD else SOFT})"
        )
print(f"{len(lengths)} files, {sum(lengths.values())} lines")
sys.exit(any(lines > HARD for lines in lengths.values()))
