"""Runs every ```sh block of a README, each as one bash script from the project's root.

Blocks with another tag (```console, ```toml) are for reading, or need hardware. Commands in STEPS are steps of
`.ci/run` of their own, and are not run twice.
"""

import re
import subprocess
import sys
import time

STEPS = {"cargo test --workspace", "cargo bench --bench table", "bash .ci/run"}
LIMIT_SECONDS = 600


def main(path):
    text = open(path, encoding="utf-8").read()
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    if not blocks:
        sys.exit(f"{path} has no commands")
    for block in blocks:
        lines = [line for line in block.splitlines() if line.strip() not in STEPS]
        script = "\n".join(lines).strip()
        if not script:
            continue
        print("$ " + script.replace("\n", "\n$ "), flush=True)
        started = time.monotonic()
        result = subprocess.run(["bash", "-euo", "pipefail", "-c", script], timeout=LIMIT_SECONDS, stdin=subprocess.DEVNULL)
        if result.returncode != 0:
            sys.exit(f"{path}: exit status {result.returncode} from:\n{script}")
        print(f"  took {time.monotonic() - started:.0f} s", flush=True)


main(sys.argv[1])
