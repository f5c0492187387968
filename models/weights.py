"""Model folders: written once, and read only when every byte is what was written.

    models/zoo/<name>/<version>/
        model.safetensors   weights, no pickle
        model.json          the card: architecture, input contract, tolerances, lineage, figures, hashes
        CARD.md             the same for a person
        calibration.npz     what the scores of normal people look like (anomaly models)
        golden/input.npy    one input batch, and
        golden/output.npy   what the network made of it when it was saved

`model.json` names the SHA-256 of every other file and, under "sha256", that of itself. Loading
reads each file once, checks it, builds the network from our own code by its architecture id,
runs the golden input and compares. Anything else is a WeightsError in one sentence.
"""

import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import import_module
from pathlib import Path, PurePosixPath
from shutil import rmtree
from typing import Any, Literal, cast, get_args

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray

Kind = Literal["denoiser", "anomaly", "vae"]

FORMAT = 1
ZOO = Path(__file__).parent / "zoo"
ARCHITECTURES = {
    "bf-rae": ("models.denoiser", "BFRAE"),
    "coarse-dae": ("models.anomaly", "CoarseDAE"),
    "vae": ("models.vae", "VAE"),
}
CARD, WEIGHTS, CARD_TEXT, CALIBRATION = "model.json", "model.safetensors", "CARD.md", "calibration.npz"
GOLDEN_INPUT, GOLDEN_OUTPUT = "golden/input.npy", "golden/output.npy"
REQUIRED_FILES = frozenset({WEIGHTS, CARD_TEXT, GOLDEN_INPUT, GOLDEN_OUTPUT})

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?")
_VERSION = re.compile(r"\d{1,6}\.\d{1,6}\.\d{1,6}")


class WeightsError(Exception):
    """A model folder is damaged, unknown, or does not reproduce its golden output."""


@dataclass(frozen=True)
class LoadedModel:
    """A network that reproduced its golden output, with its card; ready to be used."""

    name: str
    version: str
    kind: Kind
    weights_sha256: str
    card: dict[str, Any]  # model.json
    network: torch.nn.Module  # in eval mode, on `device`, no gradients
    device: str
    calibration: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def is_version(text: str) -> bool:
    """Whether it is a version as models have them, like 1.2.3."""
    return _VERSION.fullmatch(text) is not None


def list_models(zoo: Path = ZOO) -> list[Path]:
    """Every model folder of a zoo, by name and then version, whether sound or not."""
    found = [card.parent for card in zoo.glob(f"*/*/{CARD}") if is_version(card.parent.name)]
    return sorted(found, key=lambda folder: (folder.parent.name, _order(folder.name)))


def resolve(name_or_path: str, zoo: Path = ZOO) -> Path:
    """The folder of a model.

    "ct-denoise" is the newest version in the zoo, "ct-denoise/0.1.0" that one; anything else is a
    folder that holds a model.json. Only a path that begins with "/", "./", "../" or "~" may climb.
    Raises WeightsError with the names there are.
    """
    name, _, version = name_or_path.partition("/")
    if _NAME.fullmatch(name) and (not version or is_version(version)):
        for folder in reversed(list_models(zoo)):
            if folder.parent.name == name and version in ("", folder.name):
                return folder
    climbs = ".." in Path(name_or_path).parts and not name_or_path.startswith(("/", "./", "../", "~"))
    if not climbs and "\0" not in name_or_path:
        folder = Path(name_or_path).expanduser()
        if (folder / CARD).is_file():
            return folder.resolve()
    known = ", ".join(f"{f.parent.name}/{f.name}" for f in list_models(zoo)) or "none"
    raise WeightsError(f"there is no model {name_or_path!r}; the zoo has: {known}")


def load(name_or_path: str, device: str = "cpu") -> LoadedModel:
    """The model, checked as this module says. Raises WeightsError with one sentence for each fault."""
    folder = resolve(name_or_path)
    card, contents, faults = _read(folder)
    if faults:
        raise WeightsError(f"model folder {folder.name!r}: " + "; ".join(faults))
    network = _network(card, contents[WEIGHTS]).to(device).eval().requires_grad_(False)
    _check_golden(network, card, contents, device)
    calibration = _arrays(contents[CALIBRATION]) if CALIBRATION in contents else {}
    return LoadedModel(
        name=card["name"],
        version=card["version"],
        kind=cast(Kind, card["kind"]),
        weights_sha256=card["files"][WEIGHTS],
        card=card,
        network=network,
        device=device,
        calibration=calibration,
    )


def verify(folder: Path, device: str = "cpu") -> list[str]:
    """What is wrong with a model folder, one sentence each; empty when it can be used."""
    card, contents, faults = _read(folder)
    if not faults:
        try:
            network = _network(card, contents[WEIGHTS]).to(device).eval().requires_grad_(False)
            _check_golden(network, card, contents, device)
            if CALIBRATION in contents:
                _arrays(contents[CALIBRATION])
        except WeightsError as error:
            faults.append(str(error))
    return faults


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a model folder, once all hashes hold. Raises WeightsError."""
    card, _, faults = _read(folder)
    if faults:
        raise WeightsError(f"model folder {folder.name!r}: " + "; ".join(faults))
    return card


def build(architecture: str, arguments: Mapping[str, Any]) -> torch.nn.Module:
    """A new network of one of ARCHITECTURES. Raises WeightsError on another id or wrong arguments."""
    if architecture not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise WeightsError(f"unknown architecture {architecture!r}; known: {known}")
    module, name = ARCHITECTURES[architecture]
    try:
        return cast(torch.nn.Module, getattr(import_module(module), name)(**arguments))
    except (TypeError, ValueError) as error:
        raise WeightsError(f"architecture {architecture!r} refuses its arguments: {error}") from error


def save(
    folder: Path,
    network: torch.nn.Module,
    card: Mapping[str, Any],
    golden_input: NDArray[np.float32],
    card_text: str,
    calibration: Mapping[str, NDArray[Any]] | None = None,
) -> None:
    """Write a model folder; it appears whole or not at all, and never replaces another.

    `card` needs "name", "version", "kind", "architecture" {"id", "arguments"} and "golden_tolerance"
    (largest difference of an output value, in the network's units); hashes are added here.
    `golden_input` is one batch (B, C, H, W). The network runs in eval mode on the CPU in float32.
    """
    if folder.exists():
        raise WeightsError(f"{folder.name!r} exists; changed weights or figures are a new version")
    network = network.to("cpu").eval()
    state = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    golden = golden_input.astype(np.float32)
    contents = {
        WEIGHTS: safetensors.torch.save(state),
        CARD_TEXT: card_text.encode(),
        GOLDEN_INPUT: _npy(golden),
        GOLDEN_OUTPUT: _npy(_run(network, golden, "cpu")),
    }
    if calibration is not None:
        packed = io.BytesIO()
        arrays: dict[str, Any] = {name: np.asarray(array) for name, array in calibration.items()}
        np.savez_compressed(packed, allow_pickle=False, **arrays)
        contents[CALIBRATION] = packed.getvalue()
    hashes = {name: sha256(data).hexdigest() for name, data in sorted(contents.items())}
    whole = {"format": FORMAT, **card, "files": hashes}
    whole["sha256"] = _own_hash(whole)
    if faults := _faults_of_card(whole):
        raise WeightsError("; ".join(faults))
    contents[CARD] = _render(whole).encode()
    partial = folder.with_name(folder.name + ".partial")
    rmtree(partial, ignore_errors=True)
    for name, data in contents.items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).write_bytes(data)
    partial.rename(folder)


def repack(source: Path, folder: Path, model: LoadedModel, version: str) -> None:
    """Write `model` to `folder` as another version of `source`: same weights, another calibration."""
    card, contents, faults = _read(source)
    if faults:
        raise WeightsError(f"model folder {source.name!r}: " + "; ".join(faults))
    kept = {name: value for name, value in card.items() if name not in ("files", "sha256", "format")}
    text = (
        contents[CARD_TEXT].decode().replace(f"{card['name']} {card['version']}", f"{card['name']} {version}")
    )
    golden = _array(contents[GOLDEN_INPUT], GOLDEN_INPUT)
    save(folder, model.network, {**kept, "version": version}, golden, text, model.calibration)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, bytes], list[str]]:
    """The card, each listed file's bytes, and the faults found; with faults, use neither."""
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
        card = json.loads(text)
    except (OSError, ValueError) as error:
        return {}, {}, [f"{CARD} cannot be read: {type(error).__name__}"]
    faults = [f"{CARD}: {fault}" for fault in _faults_of_card(card)]
    # A file that is not exactly what save() wrote was edited or damaged, even if only in its blanks.
    if not faults and (card.get("sha256") != _own_hash(card) or text != _render(card)):
        faults = [f"{CARD} was changed after it was written"]
    if faults:
        return card if isinstance(card, dict) else {}, {}, faults
    contents: dict[str, bytes] = {}
    for name, expected in card["files"].items():
        try:
            contents[name] = (folder / name).read_bytes()
        except OSError as error:
            faults.append(f"{name} cannot be read: {type(error).__name__}")
            continue
        if sha256(contents[name]).hexdigest() != expected:
            faults.append(f"{name} was changed: its SHA-256 is not the one in {CARD}")
    return card, contents, faults


def _faults_of_card(card: object) -> list[str]:
    if not isinstance(card, dict):
        return ["not an object"]
    if card.get("format") != FORMAT:
        return [f"format is {card.get('format')!r}; this version reads {FORMAT}"]
    faults = []
    if not _NAME.fullmatch(str(card.get("name"))):
        faults.append(f"name {card.get('name')!r} is not of lower-case letters, digits, - and _")
    if not is_version(str(card.get("version"))):
        faults.append(f"version {card.get('version')!r} is not like 1.2.3")
    if card.get("kind") not in get_args(Kind):
        faults.append(f"kind {card.get('kind')!r} is none of {', '.join(get_args(Kind))}")
    architecture = card.get("architecture")
    if not isinstance(architecture, dict) or not isinstance(architecture.get("arguments"), dict):
        faults.append("architecture has no id and arguments")
    elif architecture.get("id") not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        faults.append(f"unknown architecture {architecture.get('id')!r}; known: {known}")
    tolerance = card.get("golden_tolerance")
    if not isinstance(tolerance, int | float) or not 0 < tolerance < math.inf:
        faults.append("golden_tolerance is not a positive number")
    files = card.get("files")
    if not isinstance(files, dict) or not files.keys() >= REQUIRED_FILES:
        faults.append(f"files does not list {', '.join(sorted(REQUIRED_FILES))}")
    else:
        faults += [f"file name {name!r} leads out of the folder" for name in files if not _stays_inside(name)]
    return faults


def _stays_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", part) for part in parts)


def _network(card: dict[str, Any], weights: bytes) -> torch.nn.Module:
    network = build(card["architecture"]["id"], card["architecture"]["arguments"])
    try:
        state = safetensors.torch.load(weights)
        network.load_state_dict(state, strict=True)
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{WEIGHTS} does not fit {card['architecture']['id']!r}: {error}") from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise WeightsError(f"{WEIGHTS} holds values that are not finite")
    return network


def _check_golden(
    network: torch.nn.Module, card: dict[str, Any], contents: dict[str, bytes], device: str
) -> None:
    expected = _array(contents[GOLDEN_OUTPUT], GOLDEN_OUTPUT)
    try:
        output = _run(network, _array(contents[GOLDEN_INPUT], GOLDEN_INPUT), device)
    except RuntimeError as error:
        raise WeightsError(f"the golden input cannot be run: {error}") from error
    if output.shape != expected.shape:
        raise WeightsError(f"the golden output has shape {output.shape}, not {expected.shape}")
    difference = float(np.max(np.abs(output - expected)))
    if not difference <= card["golden_tolerance"]:
        raise WeightsError(
            f"the golden output differs by {difference:.3g}, allowed is {card['golden_tolerance']:.3g}"
        )


def _run(network: torch.nn.Module, batch: NDArray[np.float32], device: str) -> NDArray[np.float32]:
    # TF32, a GPU's default for convolutions, rounds more than golden tolerances allow.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        output = network(torch.from_numpy(batch).to(device))
    return np.asarray(output.float().cpu().numpy(), np.float32)


def _npy(array: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _array(data: bytes, name: str) -> NDArray[np.float32]:
    try:
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False), np.float32)
    except (ValueError, EOFError) as error:
        raise WeightsError(f"{name} is not a plain array: {error}") from error


def _arrays(data: bytes) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError) as error:
        raise WeightsError(f"{CALIBRATION} is not an archive of plain arrays: {error}") from error


def _render(card: Mapping[str, Any]) -> str:
    return json.dumps(card, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _own_hash(card: Mapping[str, Any]) -> str:
    return sha256(_render({k: v for k, v in card.items() if k != "sha256"}).encode()).hexdigest()


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
