"""The installed command as its own process: the entry point, signals in the middle, what is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

# Stands in for a slow recovery or a slow disk, says when it is there, and waits for the signal.
# A job in the background inherits that Ctrl-C is ignored; the program is one of the foreground.
_PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from emjax.cli import main
{patch}
main()
"""
_SLOW_RECOVERY = """
import emjax.cli.recover as module
def slow(*args):
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
module._apply = slow
"""
_SLOW_WRITE = """
import tifffile
write = tifffile.TiffWriter.write
def slow(self, *args, **kwargs):
    write(self, *args, **kwargs)
    print("ready", file=sys.stderr, flush=True)
    time.sleep(60)
tifffile.TiffWriter.write = slow
"""


def test_entry_point(scan: Path) -> None:
    script = Path(sys.executable).with_name("emjax")
    command = [str(script)] if script.exists() else [sys.executable, "-c", "from emjax.cli import command; command()"]
    done = subprocess.run([*command, "info", str(scan)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "64 x 64" in done.stdout and done.stderr == ""
    code = "import sys; from emjax.cli.info import describe_file as f; f(sys.argv[1]); print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(scan)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False"  # describing a file starts no device


@pytest.mark.parametrize("patch", [_SLOW_RECOVERY, _SLOW_WRITE], ids=["recovery", "write"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(scan: Path, patch: str, number: signal.Signals) -> None:
    (scan.parent / "out.tif").write_bytes(b"older")
    program = _PROGRAM.format(patch=patch)
    arguments = ["recover", str(scan), "--missing", "0", "--method", "linear", "-o", str(scan.with_name("out.tif"))]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    process.send_signal(number)
    begin = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - begin < 20  # it does not wait for the computing
    assert process.returncode == 128 + number
    assert out == "" and err.count("\n") == 1 and err.startswith("emjax: ")
    assert sorted(os.listdir(scan.parent)) == ["out.tif", "scan.tif"]
    assert (scan.parent / "out.tif").read_bytes() == b"older"


def test_a_full_device_for_the_report(scan: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    program = "from emjax.cli import command; command()"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, "info", str(scan)], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.startswith("emjax: the report could not be written to standard output (the disk is full")


def test_a_report_that_nobody_takes_leaves_the_image(scan: Path) -> None:
    emjax = f"{sys.executable} -c 'from emjax.cli import command; command()'"
    recover = f"{emjax} recover {scan} --missing 0 --method linear -o {scan.with_name('out.tif')}"
    ends = {">&-": "closed"} | ({"--json > /dev/full": "disk is full"} if os.path.exists("/dev/full") else {})
    for end, word in ends.items():
        done = subprocess.run(f"{recover} {end}", shell=True, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert word in done.stderr and f"the image is written: {scan.with_name('out.tif')}" in done.stderr
        assert tifffile.imread(scan.with_name("out.tif")).shape == (64, 64)
        scan.with_name("out.tif").unlink()


def test_the_file_is_written_whole(scan: Path) -> None:
    program = "from emjax.cli import command; command()"
    arguments = ["recover", str(scan), "--missing", "0", "--method", "linear"]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True)
    assert tifffile.imread(scan.with_name("scan_recovered.tif")).dtype == np.uint8
