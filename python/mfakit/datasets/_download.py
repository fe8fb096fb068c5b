"""The root folder of the data, and a checked download when it is asked for."""

from __future__ import annotations

import os
from pathlib import Path

from .._io.progress import is_watched

__all__ = ["RESOURCES", "data_root", "expanded", "fetch"]

_MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_CIFAR_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)

# File name -> (SHA-256, folders on the net that hold it, tried in this order).
RESOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        _MNIST_MIRRORS,
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        _MNIST_MIRRORS,
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        _MNIST_MIRRORS,
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        _MNIST_MIRRORS,
    ),
    "cifar-10-binary.tar.gz": (
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        _CIFAR_MIRRORS,
    ),
}


def data_root(root: str | os.PathLike[str] | None) -> Path:
    """The folder that holds the data: `root`, else $MFAKIT_DATA, else the user's cache folder."""
    given = os.environ.get("MFAKIT_DATA") or None if root is None else root
    if given is not None:
        return expanded(given)
    import pooch

    return Path(pooch.os_cache("mfakit"))


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with "~" and "~user" written out.

    Raises
    ------
    ValueError
        If there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path} names the home of a user that does not exist; write the path out") from error


def fetch(name: str, folder: Path) -> Path:
    """Download one of RESOURCES into `folder`, verify its SHA-256, and return its path.

    Raises
    ------
    PermissionError
        If `folder` cannot be written to.
    OSError
        If no mirror can be reached or none serves the file with that checksum; nothing is left behind then.
    """
    import pooch

    sha256, mirrors = RESOURCES[name]
    reasons = []
    for mirror in mirrors:
        try:
            where = {"fname": name, "path": folder, "progressbar": is_watched()}
            return Path(pooch.retrieve(mirror + name, f"sha256:{sha256}", **where))
        except PermissionError as error:
            raise PermissionError(
                f"cannot write {name} to {folder}; pass root= a folder that you may write to"
            ) from error
        except OSError as error:  # what requests raises is an OSError too
            reasons.append(f"{mirror}: {type(error).__name__}")
        except ValueError:
            reasons.append(f"{mirror}: its SHA-256 is not {sha256}")
    raise OSError(f"could not download {name} ({'; '.join(reasons)}); fetch it by hand and put it into {folder}")
