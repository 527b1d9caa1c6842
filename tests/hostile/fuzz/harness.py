"""Runs one target under atheris: harness.py TARGET DIRECTORY [libFuzzer options]. Called by scripts/fuzz."""

import sys
from pathlib import Path

import atheris

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "gateway")]

with atheris.instrument_imports(include=["ztproxy.wire", "ztproxy.gateway", "ztproxy.upstream"]):
    from seeds import DICTIONARY, seeds
    from targets import TARGETS


def main() -> None:
    """Write the seeds and the dictionary, then fuzz until libFuzzer's options say stop."""
    name, directory, *options = sys.argv[1:]
    place = Path(directory)
    for number, seed in enumerate(seeds(name)):
        (place / f"seed-{number:04}").write_bytes(seed)
    words = place.with_suffix(".dict")
    words.write_text("".join(f'"{_quoted(word)}"\n' for word in DICTIONARY))
    longest = f"-max_len={4096 if name != 'connection' else 1500}"
    atheris.Setup([sys.argv[0], directory, f"-dict={words}", longest, *options], TARGETS[name])
    atheris.Fuzz()


def _quoted(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


main()
