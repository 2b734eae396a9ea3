"""Runs every ```sh block of a README, each as one bash script in the project's root directory.

Blocks with another tag (```console, ```toml) are examples, or need hardware. The commands in STEPS are left out, because
other steps of `.ci/run` run them.
"""

import re
import subprocess
import sys
import time

STEPS = {"cargo test --workspace", "cargo bench --bench table", "bash .ci/run", "just ci"}
LIMIT_SECONDS = 600


def main(path):
    text = open(path, encoding="utf-8").read()
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    if not blocks:
        sys.exit(f"{path} contains no commands")
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
