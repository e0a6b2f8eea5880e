"""Train the digits CNN, export it to ONNX, and write calibration and evaluation data.

    python examples/digits/prepare.py [FOLDER]

Everything comes from scikit-learn's bundled digits (1,797 images of 8x8), so nothing is downloaded. The
samples that the model is judged on are neither trained on nor calibrated with.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from network import FOLDER, WEIGHTS, DigitNet
from sklearn.datasets import load_digits
from torch import nn

CALIBRATION, EVALUATION = 200, 600
EPOCHS, BATCH = 10, 64

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def digits() -> tuple[Images, Labels]:
    """All images as [n, 1, 16, 16] in 0..1 (each pixel doubled) and their labels, shuffled."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    small = (images[order].reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    return small.repeat(2, axis=2).repeat(2, axis=3), labels[order].astype(np.int64)


def train(images: Images, labels: Labels) -> DigitNet:
    """A trained network in evaluation mode."""
    torch.manual_seed(0)
    # A network this small gains nothing from more threads, and one gives the same weights everywhere.
    torch.set_num_threads(1)
    model = DigitNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    steps = EPOCHS * -(-len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(y)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def export(model: DigitNet, path: Path) -> None:
    """Write the model as ONNX with a dynamic batch."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # The exporter warns about its own internals.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(2, 1, 16, 16),),
            path,
            dynamo=True,
            external_data=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )


def main() -> None:
    """Write the model, as weights and as ONNX, and its data into the folder."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    images, labels = digits()
    model = train(images[EVALUATION:], labels[EVALUATION:])
    seconds = time.monotonic() - begin
    torch.save(model.state_dict(), folder / WEIGHTS)
    export(model, folder / "digits.onnx")
    calibration = slice(EVALUATION, EVALUATION + CALIBRATION)
    np.savez(folder / "calibration.npz", image=images[calibration])
    np.savez(folder / "evaluation.npz", image=images[:EVALUATION], label=labels[:EVALUATION])
    with torch.no_grad():
        logits = model(torch.from_numpy(images[:EVALUATION]))
    top1 = (logits.argmax(1).numpy() == labels[:EVALUATION]).mean()
    weights = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"Trained a CNN of {weights:,} weights on {len(labels) - EVALUATION:,} digits in {seconds:.1f} s: "
        f"{top1:.2%} right on {EVALUATION} held-out ones.\n"
        f"Wrote {os.path.relpath(folder)}/digits.onnx, calibration.npz and evaluation.npz"
    )


if __name__ == "__main__":
    main()
