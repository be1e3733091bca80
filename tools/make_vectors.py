"""Make tests/vectors/sdk.json with the official SDK, in a virtual environment of its own."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from client_venvs import BUILD, make_venv
from client_venvs import python_of as python_of
from sdk_cases import COINS, Case, random_key, random_l1, random_user_signed

ROOT = Path(__file__).resolve().parent.parent
#: Who signs inside the SDK: Python of its own, which shares no code with us, or the library that we use as well.
BACKENDS = {"python": "NativeECCBackend", "coincurve": "CoinCurveECCBackend"}
VENV = BUILD / "sdk"
VECTORS = ROOT / "tests" / "vectors" / "sdk.json"
SEED = 20260801


class Oracle:
    """The SDK in a process of its own: one case, one answer."""

    def __init__(self, python: Path, backend: str = "python") -> None:
        command = [str(python), str(ROOT / "tools" / "sdk_oracle.py")]
        env = {**os.environ, "ECC_BACKEND_CLASS": f"eth_keys.backends.{BACKENDS[backend]}"}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def __call__(self, case: Case) -> Case:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(case), file=self._process.stdin, flush=True)
        answer: Case = json.loads(self._process.stdout.readline() or "null")
        assert answer is not None, f"the SDK's process ended: {case}"
        return answer

    def close(self) -> None:
        self._process.communicate()


def random_float(rng: random.Random) -> float:
    if rng.random() < 0.5:
        return float(f"{rng.randrange(1, 10 ** rng.randrange(1, 12))}e-{rng.randrange(10)}")
    return rng.uniform(0, 10.0 ** rng.randrange(-9, 9))


def slippage_case(rng: random.Random) -> Case:
    coin = rng.choice([coin for coin, (_, _, kind) in COINS.items() if kind != "builder perp"])
    at = {"op": "slippage", "coin": coin, "is_buy": rng.random() < 0.5, "slippage": rng.choice((0.05, 0.01, 0.003))}
    sign = {"key": random_key(rng), "network": "mainnet", "vault": None, "expires_after": None}
    return {**at, **sign, "mid": rng.uniform(1, 10.0 ** rng.randrange(1, 6))}


def vectors(oracle: Callable[[Case], Case]) -> dict[str, list[Any]]:
    rng = random.Random(SEED)

    def answered(cases: list[Case]) -> list[Any]:
        rows = [{**case, "expected": oracle(case)} for case in cases]
        for row in rows:
            if "msgpack" in row["expected"]:
                del row["expected"]["action"]  # it is in the msgpack
        return rows

    def items(case: Case) -> int:
        return len(case.get("orders") or case.get("modifies") or case.get("cancels") or [])

    signed = [{"key": random_key(rng), **random_l1(rng)} for _ in range(350)]
    signed = [
        case for i, case in enumerate(signed) if items(case) < 4 or (items(case) < 18 and i < 60)
    ]  # keeps it small
    signed += [{"key": random_key(rng), **random_user_signed(rng)} for _ in range(100)]
    floats = [{"op": "float_to_wire", "value": random_float(rng)} for _ in range(200)]
    slippage = [slippage_case(rng) for _ in range(100)]
    return {"signed": answered(signed), "float_to_wire": answered(floats), "slippage": answered(slippage)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, help="an interpreter that has the SDK, instead of making one")
    parser.add_argument("--venv", type=Path, default=VENV, help="where to make it (default: %(default)s)")
    args = parser.parse_args()
    python = args.python or make_venv("sdk", args.venv)
    oracle = Oracle(python)
    made = vectors(oracle)
    oracle.close()
    with VECTORS.open("w") as out:
        out.write("{\n")
        for i, (name, rows) in enumerate(made.items()):
            out.write(f'"{name}": [\n' + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows))
            out.write("\n]\n" if i == len(made) - 1 else "\n],\n")
        out.write("}\n")
    print(f"{VECTORS}: {', '.join(f'{len(rows)} {name}' for name, rows in made.items())}", file=sys.stderr)


if __name__ == "__main__":
    main()
