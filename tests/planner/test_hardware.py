"""The table of chips: every number has a source and a date, agrees with published tables or lists the conflict; own files are read strictly."""

import csv
import datetime
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from trilaw.core.errors import RequestError
from trilaw.planner.hardware import BITS, QUANTITIES, Chip, Sourced, chip, chips, load_file

GPUS = [c for c in chips() if c.kind == "gpu"]

# Peak dense TFLOP/s in bf16 and the widest 8-bit format, memory in GB, bandwidth in TB/s, watts, one-direction GB/s of the fast link, its domain.
# Typed from data sheets and papers apart from the table; an 8-bit speed of 0 means that the chip has none.
PUBLISHED = {
    "h100": (989.4, 1979, 80, 3.35, 700, 450, 8),
    "H100 PCIe": (756, 1513, 80, 2.04, 350, 300, 2),
    "h800": (989, 1979, 80, 3.35, 700, 200, 8),
    "h20": (148, 296, 96, 4.0, 400, 450, 8),
    "h200": (989.5, 1979, 141, 4.8, 700, 450, 8),
    "a100": (312, 624, 80, 2.039, 400, 300, 8),
    "a100 40gb": (312, 624, 40, 1.555, 400, 300, 8),
    "a800": (312, 624, 80, 2.039, 400, 200, 8),
    "b200": (2250, 4500, 180, 7.7, 1000, 900, 8),
    "gb200": (2500, 5000, 186, 8.0, 1200, 900, 72),
    "4090": (165.2, 660.6, 24, 1.008, 450, 32, 8),
    "l40s": (362, 733, 48, 0.864, 350, 32, 8),
    "l20": (119.5, 239, 48, 0.864, 275, 32, 8),
    "910b": (376, 0, 64, 1.6, 400, 196, 8),
    "910c": (800, 0, 128, 3.2, 700, 392, 384),
    "mi300x": (1307.4, 2614.9, 192, 5.3, 750, 448, 8),
    "mi325x": (1307.4, 2614.9, 256, 6.0, 1000, 448, 8),
}

# Rows of Epoch AI's table for a chip: more than one where they conflict.
ROWS = {
    "H100 SXM": ["NVIDIA H100 SXM5 80GB"],
    "H100 PCIe": ["NVIDIA H100 PCIe"],
    "H800 SXM": ["NVIDIA H800 SXM5"],
    "H20": ["NVIDIA HGX H20"],
    "H200 SXM": ["NVIDIA H200 SXM"],
    "A100 80GB SXM": ["NVIDIA A100 SXM4 80 GB"],
    "A100 40GB SXM": ["NVIDIA A100 SXM4 40 GB", "NVIDIA A100"],
    "A800 SXM": ["NVIDIA A800 SXM"],
    "B200": ["NVIDIA B200"],
    "GB200": ["NVIDIA GB200"],
    "RTX 4090": ["NVIDIA GeForce RTX 4090"],
    "L20": ["NVIDIA L20 PCle"],
    "Ascend 910B": ["Huawei Ascend 910B", "Huawei Ascend 910B2", "Huawei Ascend 910B3", "Huawei Ascend 910B4"],
    "Ascend 910C": ["Huawei Ascend 910C"],
    "MI300X": ["AMD Instinct MI300X"],
    "MI325X": ["AMD Instinct MI325X"],
}
COLUMNS = {
    "bf16": "Tensor-FP16/BF16 performance (FLOP/s)",
    "fp8": "FP8 performance (FLOP/s)",
    "fp4": "FP4 performance (FLOP/s)",
    "int8": "INT8 performance (OP/s)",
    "fp32": "FP32 (single precision) performance (FLOP/s)",
    "memory_bytes": "Memory (bytes)",
    "memory_bandwidth": "Memory bandwidth (byte/s)",
    "watts": "TDP (W)",
    "die_mm2": "Die Size (mm^2)",
}


def numbers(c: Chip) -> dict[str, Sourced]:
    """Every number of a chip, by field or format."""
    found = {name: getattr(c, name) for name in QUANTITIES}
    return dict(c.flops) | {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name: str) -> None:
    bf16, eight, memory, bandwidth, watts, link, domain = PUBLISHED[name]
    c = chip(name)
    assert c.rate("bf16") == pytest.approx(bf16 * 1e12, rel=1e-3)
    speeds = [c.rate(format) for format in ("fp8", "int8") if format in c.flops]
    assert max(speeds, default=0.0) == pytest.approx(eight * 1e12, rel=1e-3)
    sold = [said.value for said in (c.memory_bytes, *c.memory_bytes.others)]
    assert memory * 1e9 in sold
    assert c.memory_bandwidth.value == pytest.approx(bandwidth * 1e12, rel=5e-3)
    assert c.need("watts") == watts
    assert c.need("scale_up_bandwidth") == link * 1e9
    assert c.need("scale_up_size") == domain


# MiB that drivers report, typed apart from the table (nvidia-smi, rocminfo, npu-smi)
DRIVERS = {
    "h100": 81_559, "H100 PCIe": 81_559, "h800": 81_559, "h20": 97_871, "h200": 143_771, "a100": 81_920, "a100 40gb": 40_960, "a800": 81_920,
    "b200": 183_359, "gb200": 189_471, "4090": 24_564, "l40s": 46_068, "l20": 46_068, "910b": 65_536, "910c": 131_072, "mi300x": 196_592,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_memory_is_what_the_driver_reports_or_else_the_data_sheets(name: str) -> None:
    memory = chip(name).memory_bytes
    if name not in DRIVERS:
        assert memory.value == PUBLISHED[name][2] * 1e9
        return
    assert memory.value == DRIVERS[name] * 2**20
    assert "smi on" in memory.source or "rocminfo on" in memory.source
    assert memory.note == f"sold as {PUBLISHED[name][2]} GB"
    assert 1 <= memory.value / (PUBLISHED[name][2] * 1e9) < 1.08, "GiB sold as GB at most"


def test_the_table_is_whole() -> None:
    assert {c.name for c in GPUS} == {chip(name).name for name in PUBLISHED}
    assert [c.name for c in chips()] == sorted((c.name for c in chips()), key=str.casefold)
    assert chip("cpu").name == "epyc-zen4-2core"


def test_network_of_a_deepseek_cluster() -> None:
    """arXiv 2412.19437 section 3: NVLink 160 GB/s of 200, InfiniBand 50 GB/s, a ratio of 3.2; 40 of the 50 in arXiv 2505.09343."""
    h800 = chip("h800")
    assert h800.need("scale_up_effective") / h800.need("scale_out_bandwidth") == pytest.approx(3.2)
    assert h800.need("scale_out_effective") == 40e9
    assert h800.need("node_size") == 8


def test_share_of_the_server_in_watts() -> None:
    assert chip("h100").need("all_in_watts") == pytest.approx(10_200 / 8)
    assert chip("b200").need("all_in_watts") == pytest.approx(14_300 / 8)
    gb200 = chip("gb200").all_in_watts
    assert gb200 is not None
    assert gb200.value == pytest.approx(132_000 / 72, abs=1)
    assert gb200.low == pytest.approx(120_000 / 72, abs=1)
    for c in chips():
        if c.all_in_watts and c.watts:
            assert c.all_in_watts.value > c.watts.value


@pytest.mark.parametrize("c", chips(), ids=lambda c: c.name)
def test_every_number_has_a_source_and_a_date(c: Chip) -> None:
    for name, number in numbers(c).items():
        for said in (number, *number.others):
            assert len(said.source) > 8, name
            year = datetime.date.fromisoformat((said.date + "-01-01")[:10] if len(said.date) < 10 else said.date).year
            assert 2020 <= year <= 2026, name
            assert 0 < said.low <= said.value <= said.high < math.inf, name
            assert said.unit == number.unit
    json.dumps(c.to_json(), allow_nan=False)


@pytest.mark.parametrize("c", chips(), ids=lambda c: c.name)
def test_every_name_and_alias_finds_its_chip(c: Chip) -> None:
    for known in (c.name, *c.aliases):
        assert chip(known) is c


def test_no_two_chips_share_a_name() -> None:
    names = [known.casefold().replace(" ", "").replace("-", "") for c in chips() for known in (c.name, *c.aliases)]
    assert len(names) == len(set(names))


def test_agrees_with_epoch_or_lists_the_conflict(shared_data: Path) -> None:
    with (shared_data / "hardware" / "epoch_ml_hardware.csv").open(encoding="utf-8") as file:
        table = {row["Hardware name"]: row for row in csv.DictReader(file)}
    compared = 0
    for name, rows in ROWS.items():
        for field, number in numbers(chip(name)).items():
            for row in (table[r] for r in rows):
                if field in COLUMNS and row[COLUMNS[field]]:
                    theirs = float(row[COLUMNS[field]])
                    near = [x.value for x in (number, *number.others) if abs(x.value / theirs - 1) <= 0.03]
                    assert near, f"{name}: {field} is {number.value:g}, {row['Hardware name']} has {theirs:g}"
                    compared += 1
    assert compared > 100


def test_spellings_of_a_name() -> None:
    for name in ("h100", "H100-SXM", "h100_sxm", "H100 SXM5", "DGX H100"):
        assert chip(name).name == "H100 SXM"


@pytest.mark.parametrize(
    ("name", "meant"), [("h1000", "H100"), ("rtx4080", "RTX 4090"), ("mi350x", "MI325X"), ("910D", "910C")]
)
def test_a_name_that_is_near(name: str, meant: str) -> None:
    with pytest.raises(RequestError) as caught:
        chip(name)
    assert str(caught.value) == (
        f"There is no chip '{name}' (did you mean '{meant}'?); a file of your own is named by its path, ending in .toml."
    )


def test_a_name_of_nothing_lists_the_chips() -> None:
    with pytest.raises(
        RequestError, match=r"There is no chip 'xyzzy-q' \(known: A100 40GB SXM, .*epyc-zen4-2core.*\); a file"
    ):
        chip("xyzzy-q")


def test_absent_numbers_are_asked_for() -> None:
    with pytest.raises(RequestError, match="The table of A100 80GB SXM has no speed in 'fp8'"):
        chip("a100").rate("fp8")
    with pytest.raises(RequestError) as caught:
        chip("4090").need("scale_out_bandwidth")
    assert str(caught.value) == (
        "No source gives 'scale_out_bandwidth' of RTX 4090: copy its table to a file of your own and add it,"
        ' for example scale_out_bandwidth = "3.35 TB/s".'
    )


OWN = """
name = "mine"
kind = "gpu"
source = "my data sheet"
date = 2026-11-01
memory = "48 GB"
memory_bandwidth = { value = "1 TB/s", others = [{ value = "0.9 TB/s", source = "a test of mine", date = "2026" }] }

[flops]
bf16 = "200 TFLOP/s"
"""


def own(tmp_path: Path, text: str) -> Chip:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return load_file(path)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    mine = own(tmp_path, OWN)
    assert mine == chip(str(tmp_path / "mine.toml"))
    assert (mine.memory_bytes.value, mine.rate("bf16"), mine.scale_up_size.value) == (48e9, 200e12, 1.0)
    assert (mine.memory_bytes.source, mine.memory_bytes.date) == ("my data sheet", "2026-11-01")
    assert (mine.memory_bandwidth.low, mine.memory_bandwidth.high) == (0.9e12, 1e12)
    assert mine.memory_bandwidth.others[0].source == "a test of mine"
    assert mine.scale_out_bandwidth is None


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('name = "mine"', "", "mine.toml: the key 'name' is missing."),
        ('name = "mine"', "name = 3", "mine.toml: 'name' must be a text."),
        ('name = "mine"', 'name = " "', "mine.toml: 'name' is empty."),
        ('"gpu"', '"gppu"', "mine.toml: 'kind' = 'gppu' is unknown (did you mean 'gpu'?)."),
        ('memory = "48 GB"', "", "mine.toml: 'memory' is missing: write it as a text such as \"80 GB\"."),
        ('memory = "48 GB"', "memory = 48", "mine.toml: 'memory' = 48 has no unit: write it as a text such as \"80 GB\"."),
        ('memory = "48 GB"', 'memory = "48 GW"', "mine.toml: 'memory' = '48 GW': 'GW' is no unit of an amount of memory (known: B, GB, GiB, KiB, MB, MiB, PB, TB, TiB, kB); write it as a text such as \"80 GB\"."),
        ('memory = "48 GB"', 'memory = "48e9 GB"', "mine.toml: 'memory' is 4.8e+19 B, more than any chip has: is the unit right?"),
        ('bf16 = "200 TFLOP/s"', 'bf16 = "200e9 TFLOP/s"', "mine.toml: 'flops.bf16' is 2e+23 FLOP/s, more than any chip has: is the unit right?"),
        ('memory = "48 GB"', 'memory = "0 GB"', "mine.toml: 'memory' must be more than 0."),
        ('memory = "48 GB"', 'memory = { source = "x" }', "mine.toml: the key 'memory.value' is missing."),
        ('memory = "48 GB"', 'memory = { value = "48 GB", low = "50 GB" }', "mine.toml: 'memory' must lie between its low and its high."),
        ('memory = "48 GB"', 'memory = { value = "48 GB", hihg = "50 GB" }', "mine.toml: unknown key 'memory.hihg' (did you mean 'high'?)."),
        ('memory = "48 GB"', 'memory = "48 GB"\nmemory_bandwith = "1 TB/s"', "mine.toml: unknown key 'memory_bandwith' (did you mean 'memory_bandwidth'?)."),
        ("bf16 =", "bf61 =", "mine.toml: unknown key 'flops.bf61' (did you mean 'bf16'?)."),
        ('bf16 = "200 TFLOP/s"', "", "mine.toml: 'flops' is empty (known formats: fp32, bf16, fp16, fp8, int8, fp4, int4)."),
        ('[flops]\nbf16 = "200 TFLOP/s"', "", "mine.toml: 'flops' is missing: a table of speeds, for example bf16 = \"989.4 TFLOP/s\"."),
        ('[flops]\nbf16 = "200 TFLOP/s"', "flops = 3", "mine.toml: 'flops' must be a table."),
        ('source = "my data sheet"', "", "mine.toml: 'flops.bf16' has no source, and the file names none at its top."),
        ("date = 2026-11-01", "", "mine.toml: 'flops.bf16' has no date, and the file names none at its top."),
        ("date = 2026-11-01", 'date = "last week"', "mine.toml: 'date' = 'last week' is no date: write it as 2026-03-18."),
        ("date = 2026-11-01", 'date = "2026-13"', "mine.toml: 'date' = '2026-13' is no date: write it as 2026-03-18."),
        ('kind = "gpu"', 'kind = "gpu"\naliases = "x"', "mine.toml: 'aliases' must be a list of texts."),
        ('kind = "gpu"', 'kind = "gpu"\naliases = [1]', "mine.toml: 'aliases' must be a list of texts."),
        ('kind = "gpu"', 'kind = "gpu"\ndata_centre = 1', "mine.toml: 'data_centre' must be true or false."),
        ('kind = "gpu"', 'kind = "gpu"\nnode_size = "2.5 chips"', "mine.toml: 'node_size' must be a whole number of chips."),
        ('kind = "gpu"', "kind = ", "mine.toml is not valid TOML: Invalid value (at line 3, column 8)."),
    ],
)  # fmt: skip
def test_mistakes_in_a_file(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert old in OWN
    with pytest.raises(RequestError) as caught:
        own(tmp_path, OWN.replace(old, new, 1))
    assert str(caught.value).replace(f"{tmp_path}/", "") == sentence


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"There is no file .*none\.toml"):
        load_file(tmp_path / "none.toml")
    with pytest.raises(RequestError, match="cannot be read"):
        load_file(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe4"')
    with pytest.raises(RequestError, match="cannot be read"):
        load_file(tmp_path / "latin.toml")


def test_formats_have_bits() -> None:
    assert {format for c in chips() for format in c.flops} <= set(BITS)


def test_the_rooms_load_no_torch_and_no_pydantic() -> None:
    """In a fresh interpreter; numpy comes with calibrate alone."""
    code = (
        "import sys; from trilaw.planner import hardware, prices, export; hardware.chips();"
        "print(sorted({'torch', 'pydantic', 'numpy', 'scipy'} & set(sys.modules)));"
        "from trilaw.planner import calibrate; print(sorted({'torch', 'pydantic', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:2] == ["[]", "[]"]
